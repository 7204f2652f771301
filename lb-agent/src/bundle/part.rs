//! A file of the archive.

pub struct Part {
    pub name: String,
    pub text: String,
    /// Why it is not what it should be.
    pub problem: Option<String>,
}
