//! Modules of a kernel that is not installed: found by name in its unpacked package, in the order in which they load.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Precedes the names of the modules that a module needs, separated by commas, in its section `.modinfo`.
const NEEDS: &[u8] = b"\0depends=";

/// A module to load.
pub struct Module {
    pub name: String,
    pub content: Vec<u8>,
}

/// These modules and those that they need, each behind what it needs. Leaves out what is part of the kernel itself.
pub fn in_order(root: &Path, names: &[&str]) -> Result<Vec<Module>> {
    let (mut files, mut builtin) = (BTreeMap::new(), String::new());
    let modules = root.join("lib/modules");
    if !names.is_empty() {
        find(&modules, &mut files, &mut builtin).with_context(|| format!("no modules in {}", modules.display()))?;
    }
    let mut found = Vec::new();
    for name in names {
        add(name, &files, &builtin, &mut found)?;
    }
    Ok(found)
}

/// Adds a module behind those that it needs, unless it is there.
fn add(name: &str, files: &BTreeMap<String, PathBuf>, builtin: &str, found: &mut Vec<Module>) -> Result<()> {
    if found.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(file) = files.get(name) else {
        let is_builtin = builtin.lines().any(|line| module_name(Path::new(line)).as_deref() == Some(name));
        ensure!(is_builtin, "this kernel has no module {name}");
        return Ok(());
    };
    let content = read(file)?;
    for needed in needs(&content) {
        add(&needed, files, builtin, found)?;
    }
    found.push(Module { name: name.to_owned(), content });
    Ok(())
}

/// The modules below a folder by name, and the list of those that are part of the kernel.
fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>, builtin: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            find(&path, files, builtin)?;
        } else if path.file_name().is_some_and(|name| name == "modules.builtin") {
            builtin.push_str(&fs::read_to_string(&path)?);
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// The name of the module in a file, which the kernel spells with underscores.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".xz").unwrap_or(name).strip_suffix(".ko")?;
    Some(name.replace('-', "_"))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return Ok(fs::read(file)?);
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(file).output().context("cannot start xz")?;
    ensure!(output.status.success(), "xz does not read {}", file.display());
    Ok(output.stdout)
}

/// The modules that a module needs.
fn needs(content: &[u8]) -> Vec<String> {
    let Some(start) = content.windows(NEEDS.len()).position(|bytes| bytes == NEEDS) else { return Vec::new() };
    let text = content[start + NEEDS.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(text).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_behind_what_it_needs() {
        let folder = std::env::temp_dir().join(format!("lb-modules-{}", std::process::id()));
        let modules = folder.join("lib/modules/6.1/kernel/net");
        fs::create_dir_all(&modules).expect("the temporary folder is writable");
        for (name, depends) in [("nft_fib-inet", "nft-fib,nf_tables"), ("nft-fib", "nf_tables"), ("nf_tables", "")] {
            let content = format!("\0license=GPL\0depends={depends}\0name={name}\0");
            fs::write(modules.join(format!("{name}.ko")), content).expect("a file");
        }
        fs::write(folder.join("lib/modules/6.1/modules.builtin"), "kernel/net/core/built-in.ko\n").expect("a file");
        let loaded = |names: &[&str]| {
            in_order(&folder, names).map(|found| found.into_iter().map(|module| module.name).collect::<Vec<_>>())
        };
        let found = loaded(&["nft_fib_inet", "nf_tables", "built_in"]).expect("all are there");
        assert_eq!(found, ["nf_tables", "nft_fib", "nft_fib_inet"]);
        let error = loaded(&["veth"]).expect_err("it is missing").to_string();
        assert!(error.contains("veth"), "{error}");
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}
