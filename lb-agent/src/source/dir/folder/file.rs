//! One file of the folder: its fingerprint, and the objects in its documents.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::model::{ObjectRef, Warning, WarningKind};
use crate::source::convert::{Converted, Converter};
use crate::source::dir::document::{self, Document, Piece, Pieces};

/// Objects parsed during one look, by file, object and hash.
pub type Parsed = HashMap<(Arc<str>, ObjectRef, u64), Converted>;

/// Bytes per read: few calls for a large file, little memory for many.
const READ_BYTES: usize = 1 << 16;

/// A larger file is not read. 50,000 Services with their slices need less.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The most documents and objects of one file.
const OBJECTS_MAX: usize = 200_000;
/// A file with more bad documents is not read at all, because each one is a warning.
const BAD_MAX: usize = 1_000;

/// Why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    #[error("it is larger than {} MiB", FILE_BYTES_MAX >> 20)]
    Bytes,
    #[error("it holds more than {OBJECTS_MAX} documents or objects")]
    Objects,
    #[error("it holds more than {BAD_MAX} documents that are not objects")]
    Bad,
}

impl Excess {
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Bytes | Self::Objects => "write several files",
            Self::Bad => "correct or remove the file",
        }
    }
}

impl From<Excess> for io::Error {
    fn from(excess: Excess) -> Self {
        Self::other(excess)
    }
}

/// A file after it was read.
pub struct File {
    fingerprint: Fingerprint,
    documents: Vec<Contents>,
    /// Hashes of bad documents that were already bad when no object was missing from the file.
    trusted: BTreeSet<u64>,
    pub presence: Presence,
    /// The real folder of the file, if its name is a symbolic link.
    pub real_folder: Option<PathBuf>,
}

/// Whether the last look saw the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    There,
    /// Removed so recently that it may come back.
    Missing,
}

/// What one document holds.
#[derive(Clone)]
struct Contents {
    number: u32,
    text: u64,
    /// Hash of the text without its separator and surrounding blanks.
    essence: u64,
    /// The objects, each with a hash that includes its warnings.
    objects: Vec<(ObjectRef, u64)>,
    /// Warnings about a document or list item that is not an object. It may have been one before.
    bad: Vec<Warning>,
    /// Warnings about content that is ignored but was probably intended.
    notes: Vec<Warning>,
    /// If so, the document is parsed again whenever the file changes: warnings contain the document's number, which may
    /// change.
    has_warnings: bool,
}

impl File {
    /// Reads and parses the file, except documents that `old` knows. Returns whether the content changed.
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
        let mut reader = Reader { name, known: known(old), converter, parsed, objects: 0, bad: 0, notes: 0 };
        let documents = match Path::new(&**name).extension() {
            Some(extension) if extension == "json" => reader.json(path)?,
            Some(_) | None => reader.yaml(path)?,
        };
        let is_changed =
            old.is_none_or(|old| !old.documents.iter().map(Contents::place).eq(documents.iter().map(Contents::place)));
        let mut file =
            Self { fingerprint, documents, trusted: BTreeSet::new(), presence: Presence::There, real_folder };
        match old {
            Some(old) => file.trusted.clone_from(&old.trusted),
            None => file.trust_documents(),
        }
        Ok((file, is_changed))
    }

    /// Whether a file with this fingerprint need not be read again.
    pub fn is_same(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprint == *fingerprint && !self.fingerprint.is_fresh
    }

    /// The objects and the numbers of their documents.
    pub fn objects(&self) -> impl Iterator<Item = (u32, &(ObjectRef, u64))> {
        self.documents.iter().flat_map(|document| document.objects.iter().map(|object| (document.number, object)))
    }

    /// Whether a bad document may have been an object when no object was missing from the file.
    pub fn has_suspect(&self) -> bool {
        self.bad_texts().any(|text| !self.trusted.contains(&text))
    }

    /// Records that no object is missing from the file, so none of its bad documents is a suspect.
    pub fn trust_documents(&mut self) {
        self.trusted = self.bad_texts().collect();
    }

    fn bad_texts(&self) -> impl Iterator<Item = u64> {
        self.documents.iter().filter(|document| !document.bad.is_empty()).map(|document| document.essence)
    }

    /// Warnings about bad documents and list items, and about ignored content.
    pub fn warnings(&self, name: &str) -> Vec<Warning> {
        let each = self.documents.iter().flat_map(|document| {
            let warnings = document.bad.iter().chain(&document.notes);
            warnings.map(|warning| warning.clone().in_document(name, document.number))
        });
        each.collect()
    }
}

/// The known documents, by hash of their text.
fn known(old: Option<&File>) -> HashMap<u64, &Contents> {
    let documents = old.map(|old| old.documents.as_slice()).unwrap_or_default();
    documents.iter().filter(|document| !document.has_warnings).map(|document| (document.text, document)).collect()
}

/// Reads the documents of one file and parses the unknown ones.
struct Reader<'a> {
    name: &'a Arc<str>,
    known: HashMap<u64, &'a Contents>,
    converter: &'a mut Converter,
    parsed: &'a mut Parsed,
    /// Number of documents and objects so far.
    objects: usize,
    /// Number of bad documents and items so far.
    bad: usize,
    /// Number of notes about ignored content so far. Beyond `BAD_MAX` they are not reported.
    notes: usize,
}

impl Reader<'_> {
    fn yaml(&mut self, path: &Path) -> io::Result<Vec<Contents>> {
        let mut pieces = Pieces::of(BufReader::with_capacity(READ_BYTES, Bounded::open(path)?));
        let mut documents = Vec::new();
        while let Some(piece) = pieces.next()? {
            documents.push(self.contents(piece)?);
        }
        Ok(documents)
    }

    fn json(&mut self, path: &Path) -> io::Result<Vec<Contents>> {
        let mut bytes = Vec::new();
        Bounded::open(path)?.read_to_end(&mut bytes)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => {
                let pieces = document::split_json(text);
                Ok(pieces.iter().map(|document| self.contents(document.piece())).collect::<Result<_, Excess>>()?)
            }
            Err(_) => Ok(vec![self.contents(Piece { number: 1, line: 1, text: &bytes })?]),
        }
    }

    fn contents(&mut self, piece: Piece<'_>) -> Result<Contents, Excess> {
        let text = hash(piece.text);
        let mut contents = match (self.known.get(&text), piece.document()) {
            (Some(known), _) => Contents { number: piece.number, ..(*known).clone() },
            (None, Ok(document)) => Contents::parse(self.name, document, text, self.converter, self.parsed),
            (None, Err(error)) => Contents::not_text(piece, text, error),
        };
        self.objects += 1 + contents.objects.len();
        self.bad += contents.bad.len();
        self.notes += contents.notes.len();
        if self.notes > BAD_MAX {
            contents.notes.clear();
        }
        if self.objects > OBJECTS_MAX {
            return Err(Excess::Objects);
        }
        if self.bad > BAD_MAX { Err(Excess::Bad) } else { Ok(contents) }
    }
}

/// A file that is not read beyond its size limit, even if it grows meanwhile.
struct Bounded {
    file: std::fs::File,
    left: u64,
}

impl Bounded {
    /// Never blocks, even if the path is now a pipe.
    fn open(path: &Path) -> io::Result<Self> {
        let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(no_file());
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(Excess::Bytes.into());
        }
        Ok(Self { file, left: FILE_BYTES_MAX })
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or(Excess::Bytes)?;
        Ok(count)
    }
}

fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

impl Contents {
    fn parse(name: &Arc<str>, piece: Document<'_>, text: u64, converter: &mut Converter, parsed: &mut Parsed) -> Self {
        let read = document::read_guarded(piece, converter);
        let mut contents = Self {
            number: piece.number,
            text,
            essence: essence(piece.text.as_bytes()),
            objects: Vec::with_capacity(read.objects.len()),
            has_warnings: !read.bad.is_empty() || !read.notes.is_empty(),
            bad: read.bad,
            notes: read.notes,
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

    /// Identifies the document by number and text.
    const fn place(&self) -> (u32, u64) {
        (self.number, self.text)
    }

    fn not_text(piece: Piece<'_>, text: u64, error: std::str::Utf8Error) -> Self {
        let warning = Warning::new(
            WarningKind::BadDocument,
            format!("is not UTF-8 text ({error}); the objects that the file held before are kept"),
            "write YAML or JSON in UTF-8",
        );
        Self {
            number: piece.number,
            text,
            essence: essence(piece.text),
            objects: Vec::new(),
            bad: vec![warning],
            notes: Vec::new(),
            has_warnings: true,
        }
    }
}

fn essence(text: &[u8]) -> u64 {
    hash(text.strip_prefix(b"---").unwrap_or(text).trim_ascii())
}

fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The metadata of a file, to detect changes.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: (i64, i64),
    changed_ns: (i64, i64),
    /// Changed so recently that another change may leave the same time stamp.
    is_fresh: bool,
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        (self.device, self.inode, self.bytes, self.modified_ns, self.changed_ns)
            == (other.device, other.inode, other.bytes, other.modified_ns, other.changed_ns)
    }
}

/// Coarser than the time stamps of any local file system (ext4, tmpfs and overlay: 10 ms or less; others: seconds).
const STAMP_GRAIN: Duration = Duration::from_secs(2);

impl Fingerprint {
    /// The fingerprint of the file, or of the target of a symbolic link.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(no_file());
        }
        let modified = metadata.modified()?;
        // A time stamp in the future is useless. Then size and change time must suffice.
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

/// The target of a symbolic link. `None` if the file is not a link.
pub fn real_path(path: &Path) -> io::Result<Option<PathBuf>> {
    let is_link = std::fs::symlink_metadata(path)?.file_type().is_symlink();
    if is_link { std::fs::canonicalize(path).map(Some) } else { Ok(None) }
}
