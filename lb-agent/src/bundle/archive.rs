//! The archive: tar, compressed by gzip, with one folder at its top.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::part::Part;

const TOP: &str = "lb-agent-bundle";

/// Writes all parts. Only the owner may read the files.
pub fn write(output: impl Write, parts: &[Part], now: jiff::Timestamp) -> io::Result<()> {
    let mut archive = Builder::new(GzEncoder::new(output, Compression::default()));
    for part in parts {
        let mut header = Header::new_gnu();
        header.set_size(part.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now.as_second().try_into().unwrap_or_default());
        archive.append_data(&mut header, format!("{TOP}/{}", part.name), part.text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}
