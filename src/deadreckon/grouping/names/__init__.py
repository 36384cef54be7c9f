"""Normal forms of names by language, each in linear time: what stays the same from build to build and run to run."""
