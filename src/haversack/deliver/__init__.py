"""deliver: how a bundle gets into a repository, and from there safely into use on a device."""
