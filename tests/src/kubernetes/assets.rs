//! The programs of a real control plane, if they are installed.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// Names a folder with `kube-apiserver` and `etcd`: the convention of envtest.
pub const VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// A folder that contains both programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assets {
    folder: PathBuf,
}

impl Assets {
    /// The programs in the folder that the environment names; `None` if it names none, an error if a program is
    /// missing.
    pub fn find() -> Result<Option<Self>> {
        match std::env::var_os(VARIABLE) {
            Some(folder) if !folder.is_empty() => Self::within(folder.into()).map(Some),
            _ => Ok(None),
        }
    }

    fn within(folder: PathBuf) -> Result<Self> {
        let assets = Self { folder };
        for program in [assets.apiserver(), assets.etcd()] {
            if !program.is_file() {
                bail!("{VARIABLE} names a folder without {}: put the program there, or unset it", program.display());
            }
        }
        Ok(assets)
    }

    pub fn apiserver(&self) -> PathBuf {
        self.folder.join("kube-apiserver")
    }

    pub fn etcd(&self) -> PathBuf {
        self.folder.join("etcd")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let find = || Assets::within(folder.path().to_owned());
        let missing = |program: &str| {
            let error = find().expect_err("not all is there").to_string();
            assert!(error.contains(&folder.path().join(program).display().to_string()), "{error}");
            std::fs::write(folder.path().join(program), "").expect("it is writable");
        };
        missing("kube-apiserver");
        missing("etcd");
        assert_eq!(find().expect("all is there").etcd(), folder.path().join("etcd"));
    }
}
