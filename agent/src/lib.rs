//! The user half of graylag.
pub mod kernel;
