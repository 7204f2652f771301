//! The folder as a set of objects: which file holds which object, and what changed since the last look.
//!
//! It reads files but knows no time: the caller decides when to look.

mod file;
mod holding;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{AnnotationKeys, Change, ObjectRef, Warning, WarningKind};
use crate::source::claim::Claim;
use crate::source::convert::Converter;
use crate::source::progress::Progress;
use file::{Excess, File, Fingerprint, Parsed, Presence};
use holding::{Applied, Holding};

/// The most files that are read: each look asks the kernel about each file.
const FILES_MAX: usize = 10_000;

/// A folder and its content at the last look.
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<Arc<str>, File>,
    /// What was reported for each object.
    applied: BTreeMap<ObjectRef, Applied>,
    /// Warnings that were reported, by place: the name of a file or of the folder.
    warned: BTreeMap<String, Vec<Warning>>,
    converter: Converter,
    progress: Progress,
    patience: Patience,
    /// Device and inode of the folder at the last look.
    identity: Option<(u64, u64)>,
    listed: bool,
}

/// After how many missed looks a file counts as removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    OneLook,
    /// The file may have been removed to be written anew, and the event has not arrived yet.
    TwoLooks,
}

/// Why the folder cannot be a source.
#[derive(Debug, thiserror::Error)]
#[error("--source=dir:{path}: {source}; name a folder that exists and can be read")]
pub struct Error {
    path: String,
    source: io::Error,
}

impl Folder {
    /// Fails if the folder cannot be listed.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let folder = Self {
            path: path.to_owned(),
            files: BTreeMap::new(),
            applied: BTreeMap::new(),
            warned: BTreeMap::new(),
            converter: Converter::default(),
            progress: Progress::default(),
            patience: Patience::OneLook,
            identity: None,
            listed: false,
        };
        match folder.entries() {
            Ok(_) => Ok(folder),
            Err(source) => Err(Error { path: path.display().to_string(), source }),
        }
    }

    /// Converts for an agent that claims these Services.
    pub fn claiming(mut self, claim: Claim) -> Self {
        self.converter = self.converter.claiming(claim);
        self
    }

    /// Keeps only these annotations of Services.
    pub fn keeping(mut self, annotations: AnnotationKeys) -> Self {
        self.converter = self.converter.keeping(annotations);
        self
    }

    /// For a caller that looks again soon after each change.
    pub const fn patient(mut self) -> Self {
        self.patience = Patience::TwoLooks;
        self
    }

    /// What the source is reading, shared with its observers.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The real folders of files that are symbolic links.
    pub fn outside_folders(&self) -> BTreeSet<PathBuf> {
        self.files.values().filter_map(|file| file.real_folder.clone()).collect()
    }

    /// Looks at the folder and returns the changes. `busy` files are being written, or were removed so recently that
    /// they may come back. They keep their old content.
    ///
    /// If a file cannot be read, its objects are kept. If a document no longer parses, the objects that are missing
    /// from its file are kept.
    pub fn look(&mut self, busy: &HashSet<PathBuf>) -> Vec<Change> {
        self.progress.begin(self.path.display().to_string());
        let changes = self.look_through(busy);
        self.progress.end();
        changes
    }

    fn look_through(&mut self, busy: &HashSet<PathBuf>) -> Vec<Change> {
        let mut entries = match self.entries() {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(&error),
        };
        let mut warnings = BTreeMap::new();
        if entries.len() > FILES_MAX {
            warnings.insert(self.path.display().to_string(), vec![too_many(entries.len())]);
            // Files that were read before come first.
            entries.sort_by_key(|(name, _)| !self.files.contains_key(name));
            entries.truncate(FILES_MAX);
        }
        let mut parsed = Parsed::new();
        let mut is_changed = false;
        let names: HashSet<Arc<str>> = entries.iter().map(|(name, _)| Arc::clone(name)).collect();
        // If another folder took this path, no file is about to come back.
        let identity = std::fs::metadata(&self.path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let patience = if self.identity == identity { self.patience } else { Patience::OneLook };
        self.identity = identity;
        let path = &self.path;
        self.files.retain(|name, file| {
            let presence = if names.contains(name) { Presence::There } else { Presence::Missing };
            let is_first_miss = patience == Patience::TwoLooks && file.presence == Presence::There;
            let stays = presence == Presence::There || is_first_miss || busy.contains(&path.join(&**name));
            is_changed |= presence != file.presence || !stays;
            file.presence = presence;
            stays
        });
        for (name, path) in entries {
            self.progress.reach(&name);
            match self.look_at(&name, &path, busy, &mut parsed) {
                Ok(changed) => is_changed |= changed,
                Err(_) if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) => {
                    // The file was removed after the folder was listed.
                    is_changed |= self.miss(&name);
                }
                Err(error) => drop(warnings.insert(name.to_string(), vec![unreadable_file(&name, &error)])),
            }
        }
        for (name, file) in &self.files {
            let bad = file.warnings(name);
            if !bad.is_empty() {
                warnings.entry(name.to_string()).or_default().extend(bad);
            }
        }
        let mut changes = Vec::new();
        if is_changed || !self.listed {
            self.settle_objects(parsed, &mut warnings, &mut changes);
        } else {
            // Nothing changed, so the warnings about duplicates remain.
            self.keep_duplicates(&mut warnings);
        }
        self.tell_warnings(warnings, &mut changes);
        if !self.listed {
            self.listed = true;
            changes.push(Change::Listed);
        }
        changes
    }

    /// Records that a file is missing. Returns whether that may matter.
    fn miss(&mut self, name: &Arc<str>) -> bool {
        match self.patience {
            Patience::OneLook => self.files.remove(name).is_some(),
            Patience::TwoLooks => self
                .files
                .get_mut(name)
                .is_some_and(|file| std::mem::replace(&mut file.presence, Presence::Missing) == Presence::There),
        }
    }

    /// Reads the file if it seems to have changed. Returns whether its documents changed.
    fn look_at(
        &mut self,
        name: &Arc<str>,
        path: &Path,
        busy: &HashSet<PathBuf>,
        parsed: &mut Parsed,
    ) -> io::Result<bool> {
        let real = file::real_path(path)?;
        if busy.contains(real.as_deref().unwrap_or(path)) {
            return Ok(false);
        }
        let fingerprint = Fingerprint::of(path)?;
        if self.files.get(name).is_some_and(|file| file.is_same(&fingerprint)) {
            return Ok(false);
        }
        let old = self.files.get(name);
        let (file, changed) = File::read(name, path, real.as_deref(), fingerprint, old, &mut self.converter, parsed)?;
        self.files.insert(Arc::clone(name), file);
        Ok(changed)
    }

    /// Decides which file each object comes from, and collects the changes.
    fn settle_objects(
        &mut self,
        mut parsed: Parsed,
        warnings: &mut BTreeMap<String, Vec<Warning>>,
        changes: &mut Vec<Change>,
    ) {
        let Holding { winners, duplicates } = Holding::of(&self.files);
        for (name, duplicate) in duplicates {
            warnings.entry(name.to_string()).or_default().push(duplicate);
        }
        let mut news: Vec<(ObjectRef, Applied)> = winners
            .iter()
            .filter(|(object, winner)| self.applied.get(object) != Some(winner))
            .map(|(object, winner)| (object.clone(), winner.clone()))
            .collect();
        self.read_again(&news, &mut parsed);
        let missing = self.applied.iter().filter(|(object, _)| !winners.contains_key(object));
        let (kept, gone): (Vec<_>, Vec<_>) = missing.partition(|(_, applied)| self.is_kept(applied));
        let gone: Vec<ObjectRef> = gone.into_iter().map(|(object, _)| object.clone()).collect();
        let keeping: BTreeSet<Arc<str>> = kept.into_iter().map(|(_, applied)| Arc::clone(&applied.file)).collect();
        for (_, file) in self.files.iter_mut().filter(|(name, _)| !keeping.contains(*name)) {
            file.trust_documents();
        }
        for object in gone {
            self.applied.remove(&object);
            changes.push(Change::Remove(object));
        }
        for (reference, winner) in news.drain(..) {
            // Absent only if the file changed between two reads. The next look finds the change.
            if let Some((object, warnings)) = parsed.remove(&winner.key(&reference)) {
                changes.push(Change::Apply { object, warnings });
                self.applied.insert(reference, winner);
            }
        }
    }

    /// Reads files again for unchanged documents whose objects count only now.
    fn read_again(&mut self, news: &[(ObjectRef, Applied)], parsed: &mut Parsed) {
        let missing: BTreeSet<Arc<str>> = news
            .iter()
            .filter(|(object, winner)| !parsed.contains_key(&winner.key(object)))
            .map(|(_, winner)| Arc::clone(&winner.file))
            .collect();
        for name in missing {
            let path = self.path.join(&*name);
            // The next look finds the failure and warns of it.
            let Ok(fingerprint) = Fingerprint::of(&path) else { continue };
            let mut again = Parsed::new();
            if File::read(&name, &path, None, fingerprint, None, &mut self.converter, &mut again).is_ok() {
                parsed.extend(again);
            }
        }
    }

    /// Whether an object that its file no longer holds is kept: the file has a document that does not parse and may be
    /// the object.
    fn is_kept(&self, applied: &Applied) -> bool {
        self.files.get(&applied.file).is_some_and(File::has_suspect)
    }

    /// The files to read, sorted by name.
    fn entries(&self) -> io::Result<Vec<(Arc<str>, PathBuf)>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let path = entry.path();
            let is_ours =
                path.extension().and_then(OsStr::to_str).is_some_and(|ext| matches!(ext, "yaml" | "yml" | "json"));
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_ours && !name.starts_with('.')) else { continue };
            // A directory is skipped. The target of a symbolic link is checked later.
            if !entry.file_type()?.is_dir() {
                entries.push((Arc::from(name), path));
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn unreadable(&mut self, error: &io::Error) -> Vec<Change> {
        let warning = Warning::new(
            WarningKind::Source,
            format!("cannot be listed ({error}); the objects known before are kept"),
            "restore the folder or its permissions",
        )
        .in_file(self.path.display().to_string());
        let mut warnings = self.warned.clone();
        warnings.insert(self.path.display().to_string(), vec![warning]);
        let mut changes = Vec::new();
        self.tell_warnings(warnings, &mut changes);
        changes
    }

    fn keep_duplicates(&self, warnings: &mut BTreeMap<String, Vec<Warning>>) {
        for (place, told) in &self.warned {
            let quarrels = told.iter().filter(|warning| warning.kind == WarningKind::Duplicate).cloned();
            let quarrels: Vec<Warning> = quarrels.collect();
            if !quarrels.is_empty() {
                warnings.entry(place.clone()).or_default().extend(quarrels);
            }
        }
    }

    fn tell_warnings(&mut self, warnings: BTreeMap<String, Vec<Warning>>, changes: &mut Vec<Change>) {
        for place in self.warned.keys().filter(|place| !warnings.contains_key(*place)) {
            changes.push(Change::Place { place: place.clone(), warnings: Vec::new() });
        }
        for (place, now) in warnings.iter().filter(|(place, now)| self.warned.get(*place) != Some(now)) {
            changes.push(Change::Place { place: place.clone(), warnings: now.clone() });
        }
        self.warned = warnings;
    }
}

fn unreadable_file(name: &str, error: &io::Error) -> Warning {
    let (kind, remedy) = match error.get_ref().and_then(|error| error.downcast_ref::<Excess>()) {
        Some(excess) => (WarningKind::Source, excess.remedy()),
        // A pipe or device never held an object.
        None if error.kind() == io::ErrorKind::InvalidInput => (WarningKind::Ignored, "put a file there, or remove it"),
        None => (WarningKind::Source, "correct the file or its permissions, or remove it"),
    };
    Warning::new(kind, format!("cannot be read ({error}); the objects that it held before are kept"), remedy)
        .in_file(name)
}

fn too_many(files: usize) -> Warning {
    let problem = format!("holds {files} files; {FILES_MAX} are read, first of all those that were read before");
    Warning::new(WarningKind::Source, problem, "write several objects into one file").in_file("the folder")
}

#[cfg(test)]
mod tests;
