"""The stages that come with core."""
