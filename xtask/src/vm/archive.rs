//! A cpio archive (the format newc), which the kernel unpacks as its first file system.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// The name of the last entry.
const TRAILER: &str = "TRAILER!!!";
/// Names and contents begin at multiples of this.
const ALIGN: usize = 4;

/// An archive that is being written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<PathBuf>,
}

impl Archive {
    /// Adds a folder and those above it, if they are not there yet. The path is relative.
    pub fn folder(&mut self, path: &Path) {
        if path.as_os_str().is_empty() || self.folders.contains(path) {
            return;
        }
        if let Some(above) = path.parent() {
            self.folder(above);
        }
        self.entry(&path.to_string_lossy(), FOLDER, &[]);
        self.folders.insert(path.to_owned());
    }

    /// Adds a file that may be executed. The path is relative.
    pub fn file(&mut self, path: &Path, content: &[u8]) {
        if let Some(folder) = path.parent() {
            self.folder(folder);
        }
        self.entry(&path.to_string_lossy(), PROGRAM, content);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size, device (major, minor), device of a node, length of the name
        // with its zero, and a checksum that this format does not use.
        let (size, name_len) = (content.len() as u32, name.len() as u32 + 1);
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_len, 0];
        self.bytes.extend(b"070701");
        self.bytes.extend(fields.map(|field| format!("{field:08x}")).concat().into_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names, modes and contents of an archive, read by the fields of its headers.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).expect("digits");
                u32::from_str_radix(text, 16).expect("a number")
            };
            let (mode, size, name_len) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..109 + name_len].to_vec()).expect("a name");
            let start = (110 + name_len).next_multiple_of(4);
            found.push((name, mode, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
        found
    }

    #[test]
    fn folders_come_once_and_before_their_files() {
        let mut archive = Archive::default();
        archive.file(Path::new("lib/a/one"), b"12345");
        archive.file(Path::new("lib/two"), b"");
        archive.folder(Path::new("lib/a"));
        let found = read(&archive.finish());
        let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["lib", "lib/a", "lib/a/one", "lib/two", TRAILER]);
        assert_eq!(found[2], ("lib/a/one".into(), PROGRAM, b"12345".to_vec()));
    }
}
