//! Lists of interface names from the command line: shell globs, `auto` or `none`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use globset::{Glob, GlobSet, GlobSetBuilder};

/// The interfaces of a class.
#[derive(Clone, Debug)]
pub enum Globs {
    /// Detected by their properties.
    Auto,
    /// No interface.
    None,
    /// By name.
    Names(NameGlobs),
}

/// Shell globs for interface names, with their original text.
#[derive(Clone, Debug)]
pub struct NameGlobs {
    text: String,
    globs: Vec<String>,
    set: GlobSet,
}

impl NameGlobs {
    pub fn matches(&self, name: &str) -> bool {
        self.set.is_match(name)
    }

    /// The globs that match none of these names.
    pub fn unmatched<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<&str> {
        let matched: BTreeSet<usize> = names.flat_map(|name| self.set.matches(name)).collect();
        let globs = self.globs.iter().enumerate();
        globs.filter(|(index, _)| !matched.contains(index)).map(|(_, glob)| glob.as_str()).collect()
    }

    /// The number of globs.
    pub const fn count(&self) -> usize {
        self.globs.len()
    }
}

impl FromStr for Globs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self::None);
        }
        let (mut set, mut globs) = (GlobSetBuilder::new(), Vec::new());
        for glob in text.split(',').map(str::trim) {
            if glob.is_empty() {
                return Err(format!("{text:?} has an empty name: write globs separated by commas (veth*,cali*)"));
            }
            set.add(Glob::new(glob).map_err(|error| format!("{error}: write a shell glob such as veth*"))?);
            globs.push(glob.to_owned());
        }
        let set = set.build().map_err(|error| error.to_string())?;
        Ok(Self::Names(NameGlobs { text: text.to_owned(), globs, set }))
    }
}

impl fmt::Display for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Names(globs) => &globs.text,
        })
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::Globs;

    fn matches(globs: &str, name: &str) -> bool {
        match globs.parse().expect("globs") {
            Globs::Names(globs) => globs.matches(name),
            other => panic!("{globs} is {other}"),
        }
    }

    #[test]
    fn names_are_shell_globs() {
        for (globs, name, expected) in [
            ("veth*", "veth12ab", true),
            ("veth*", "eth0", false),
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("lxc*,cali*", "cali1", true),
            ("lxc*, cali*", "cali1", true),
            ("eth[0-2]", "eth3", false),
            ("eth?.100", "eth0.100", true),
            ("en[so]*,bond?", "eno1", true),
        ] {
            assert_eq!(matches(globs, name), expected, "{globs} {name}");
        }
    }

    #[test]
    fn globs_without_a_name_are_told() {
        let globs = "cali*, lxc*,eth0".parse().expect("globs");
        let Globs::Names(globs) = globs else { panic!("{globs}") };
        assert_eq!(globs.unmatched(["cali1", "eth01", "lo"].into_iter()), ["lxc*", "eth0"]);
        assert_eq!((globs.unmatched([].into_iter()).len(), globs.count()), (3, 3));
    }

    #[test]
    fn words_and_mistakes() {
        assert_eq!("auto".parse(), Ok(Globs::Auto));
        assert_eq!("none".parse(), Ok(Globs::None));
        assert_eq!("Auto".parse(), Ok(Globs::Auto));
        assert_eq!("NONE".parse(), Ok(Globs::None));
        for bad in ["", "veth*,", ",", "eth[0"] {
            assert!(bad.parse::<Globs>().is_err(), "{bad}");
        }
    }
}
