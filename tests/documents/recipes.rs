//! The recipes of README.md.
