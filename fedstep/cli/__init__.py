"""The commands by family: options in, one call into the story, text and an exit code out."""
