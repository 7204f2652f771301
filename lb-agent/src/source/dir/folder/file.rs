//! One file of the folder: what it looked like, and what its documents hold.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::model::{ObjectRef, Warning, WarningKind};
use crate::source::convert::{Converted, Converter};
use crate::source::dir::document::{self, Document, Piece, Pieces};

/// Objects that were parsed during one look, by file, object and hash.
pub type Parsed = HashMap<(Arc<str>, ObjectRef, u64), Converted>;

/// Read at once: few calls for a large file, little memory for many.
const READ_BYTES: usize = 1 << 16;

/// A file after it was read.
pub struct File {
    fingerprint: Fingerprint,
    documents: Vec<Contents>,
    pub presence: Presence,
    /// The folder that the file is really in, when the name is a symbolic link.
    pub real_folder: Option<PathBuf>,
}

/// Whether the last look saw the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    There,
    /// Removed so shortly ago that it may be about to come back.
    Missing,
}

/// What one document holds.
#[derive(Clone)]
struct Contents {
    number: u32,
    text: u64,
    /// The objects, and a hash of each with its warnings.
    objects: Vec<(ObjectRef, u64)>,
    bad: Vec<Warning>,
    /// Parsed again whenever the file changes: a warning names the document by its number, which may move.
    has_warnings: bool,
}

impl File {
    /// Reads and parses; documents that `old` has seen are not parsed again. Says whether the content changed.
    pub fn read(
        name: &Arc<str>,
        path: &Path,
        real: Option<&Path>,
        fingerprint: Fingerprint,
        old: Option<&Self>,
        converter: &mut Converter,
        parsed: &mut Parsed,
    ) -> io::Result<(Self, bool)> {
        let real_folder = real.and_then(Path::parent).map(Path::to_owned);
        let mut reader = Reader { name, known: known(old), converter, parsed };
        let documents = match Path::new(&**name).extension() {
            Some(extension) if extension == "json" => reader.json(path)?,
            Some(_) | None => reader.yaml(path)?,
        };
        let is_changed =
            old.is_none_or(|old| !old.documents.iter().map(Contents::place).eq(documents.iter().map(Contents::place)));
        Ok((Self { fingerprint, documents, presence: Presence::There, real_folder }, is_changed))
    }

    /// Whether a file that looks like this need not be read again.
    pub fn is_same(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprint == *fingerprint && !self.fingerprint.is_fresh
    }

    /// Objects by document number.
    pub fn objects(&self) -> impl Iterator<Item = (u32, &(ObjectRef, u64))> {
        self.documents.iter().flat_map(|document| document.objects.iter().map(|object| (document.number, object)))
    }

    pub fn has_bad_document(&self) -> bool {
        self.documents.iter().any(|document| !document.bad.is_empty())
    }

    /// Warnings about documents that do not parse.
    pub fn bad_documents(&self, name: &str) -> Vec<Warning> {
        let each = self
            .documents
            .iter()
            .flat_map(|document| document.bad.iter().map(|warning| warning.clone().in_document(name, document.number)));
        each.collect()
    }
}

/// What is known about documents, by their text.
fn known(old: Option<&File>) -> HashMap<u64, &Contents> {
    let documents = old.map(|old| old.documents.as_slice()).unwrap_or_default();
    documents.iter().filter(|document| !document.has_warnings).map(|document| (document.text, document)).collect()
}

/// Reads the documents of one file, parsing those that are not known.
struct Reader<'a> {
    name: &'a Arc<str>,
    known: HashMap<u64, &'a Contents>,
    converter: &'a mut Converter,
    parsed: &'a mut Parsed,
}

impl Reader<'_> {
    fn yaml(&mut self, path: &Path) -> io::Result<Vec<Contents>> {
        let mut pieces = Pieces::of(BufReader::with_capacity(READ_BYTES, std::fs::File::open(path)?));
        let mut documents = Vec::new();
        while let Some(piece) = pieces.next()? {
            documents.push(self.contents(piece));
        }
        Ok(documents)
    }

    fn json(&mut self, path: &Path) -> io::Result<Vec<Contents>> {
        let bytes = std::fs::read(path)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(document::split_json(text).iter().map(|document| self.contents(document.piece())).collect()),
            Err(_) => Ok(vec![self.contents(Piece { number: 1, line: 1, text: &bytes })]),
        }
    }

    fn contents(&mut self, piece: Piece<'_>) -> Contents {
        let text = hash(piece.text);
        match (self.known.get(&text), piece.document()) {
            (Some(known), _) => Contents { number: piece.number, ..(*known).clone() },
            (None, Ok(document)) => Contents::parse(self.name, document, text, self.converter, self.parsed),
            (None, Err(error)) => Contents::not_text(piece.number, text, error),
        }
    }
}

impl Contents {
    fn parse(name: &Arc<str>, piece: Document<'_>, text: u64, converter: &mut Converter, parsed: &mut Parsed) -> Self {
        let read = document::read(piece, converter);
        let mut contents = Self {
            number: piece.number,
            text,
            objects: Vec::with_capacity(read.objects.len()),
            has_warnings: !read.bad.is_empty(),
            bad: read.bad,
        };
        for (object, warnings) in read.objects {
            contents.has_warnings |= !warnings.is_empty();
            let located = warnings.into_iter().map(|warning| warning.in_document(&**name, piece.number));
            let converted = (object, located.collect());
            let reference = converted.0.reference();
            let hash = hash(&converted);
            contents.objects.push((reference.clone(), hash));
            parsed.insert((Arc::clone(name), reference, hash), converted);
        }
        contents
    }

    /// What the document is, without what it says.
    const fn place(&self) -> (u32, u64) {
        (self.number, self.text)
    }

    fn not_text(number: u32, text: u64, error: std::str::Utf8Error) -> Self {
        let warning = Warning::new(
            WarningKind::BadDocument,
            format!("is not UTF-8 text ({error}); what the file held before is kept"),
            "write YAML or JSON in UTF-8",
        );
        Self { number, text, objects: Vec::new(), bad: vec![warning], has_warnings: true }
    }
}

fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: (i64, i64),
    changed_ns: (i64, i64),
    /// Changed so shortly ago that another change may leave the same time stamp.
    is_fresh: bool,
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        (self.device, self.inode, self.bytes, self.modified_ns, self.changed_ns)
            == (other.device, other.inode, other.bytes, other.modified_ns, other.changed_ns)
    }
}

/// Coarser than the time stamps of any local file system (ext4, tmpfs, overlay: 10 ms and less; some count seconds).
const STAMP_GRAIN: Duration = Duration::from_secs(2);

impl Fingerprint {
    /// Of the file that a symbolic link leads to.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let modified = metadata.modified()?;
        // A time stamp in the future says nothing; size and change time must do.
        let is_fresh = SystemTime::now().duration_since(modified).is_ok_and(|age| age < STAMP_GRAIN);
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified_ns: (metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: (metadata.ctime(), metadata.ctime_nsec()),
            is_fresh,
        })
    }
}

/// Where a symbolic link leads; `None` for a file that is no link.
pub fn real_path(path: &Path) -> io::Result<Option<PathBuf>> {
    let is_link = std::fs::symlink_metadata(path)?.file_type().is_symlink();
    if is_link { std::fs::canonicalize(path).map(Some) } else { Ok(None) }
}
