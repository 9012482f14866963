"""What an artefact costs and how good it is, measured on the artefact itself."""
