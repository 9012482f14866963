"""haversack fits a large model into a small device and keeps it healthy there."""
