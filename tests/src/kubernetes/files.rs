//! The files of an API server: certificates, the key of its service accounts, and the token of the administrator.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::KeyPair;

use crate::apiserver::Identity;

/// The token of the administrator.
pub const ADMIN_TOKEN: &str = "lb-tests";

/// The files of one server.
pub struct Files {
    authority: String,
    folder: PathBuf,
}

impl Files {
    /// Makes new files.
    #[track_caller]
    pub fn write(folder: &Path) -> Self {
        let identity = Identity::generate();
        let accounts = KeyPair::generate().expect("random numbers");
        // With a private key of this form (PKCS #8) the server does not find the public key.
        let (accounts, accounts_public) = (accounts.serialize_pem(), accounts.public_key_pem());
        let tokens = format!("{ADMIN_TOKEN},admin,admin,system:masters\n");
        let texts = [
            ("server.crt", identity.certificate()),
            ("server.key", identity.key()),
            ("accounts.key", &accounts),
            ("accounts.pub", &accounts_public),
            ("tokens.csv", &tokens),
        ];
        for (name, text) in texts {
            fs::write(folder.join(name), text).expect("the folder is writable");
        }
        Self { authority: identity.authority().to_owned(), folder: folder.to_owned() }
    }

    /// The certificate of the authority, as PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The flags that name the files.
    pub fn flags(&self) -> Vec<String> {
        let flags = [
            ("tls-cert-file", "server.crt"),
            ("tls-private-key-file", "server.key"),
            ("service-account-key-file", "accounts.pub"),
            ("service-account-signing-key-file", "accounts.key"),
            ("token-auth-file", "tokens.csv"),
        ];
        flags.map(|(flag, name)| format!("--{flag}={}", self.folder.join(name).display())).to_vec()
    }
}
