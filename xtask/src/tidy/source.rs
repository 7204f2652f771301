//! A Rust source as tidy sees it: tokens without comments, its texts, and the paths that it names.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Which build a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    Product,
    /// Inside `#[cfg(test)] mod`.
    Test,
}

/// A word or sign of a source. Literals are left out; brackets are signs.
#[derive(Clone, Debug)]
pub struct Token {
    pub text: String,
    pub line: usize,
    pub build: Build,
}

/// A path such as `std::fs::File`, from a `use` or from the middle of the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub path: Vec<String>,
    pub line: usize,
    pub build: Build,
}

/// What a `use` brings into scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub named: Named,
    /// Whether the `use` is public (`pub use`).
    pub is_shown: bool,
}

/// A parsed source.
pub struct Source<'a> {
    /// Relative to the top of the tree.
    pub path: &'a str,
    pub text: &'a str,
    pub tokens: Vec<Token>,
    /// The string literals, each on one line, without documentation.
    pub texts: Vec<Token>,
}

impl<'a> Source<'a> {
    /// Splits a source into tokens.
    pub fn parse(path: &'a str, text: &'a str) -> Result<Self> {
        let stream: TokenStream = text.parse().map_err(|error| anyhow!("{path} is not Rust: {error}"))?;
        let (mut tokens, mut texts) = (Vec::new(), Vec::new());
        flatten(stream, Build::Product, &mut tokens, &mut texts);
        Ok(Self { path, text, tokens, texts })
    }

    /// Whether the tokens at `index` are `texts`, in this order.
    pub fn has_at(&self, index: usize, texts: &[&str]) -> bool {
        let found = self.tokens.get(index..index + texts.len());
        found.is_some_and(|found| found.iter().zip(texts).all(|(token, text)| token.text == *text))
    }

    /// Every path that the source names.
    pub fn paths(&self) -> Vec<Named> {
        let mut used = Vec::new();
        let inline = self.inline_paths(&mut used);
        [used, inline].concat()
    }

    /// Every full path that a `use` names, without its prefixes.
    pub fn uses(&self) -> Vec<Used> {
        let mut uses = Vec::new();
        for index in (0..self.tokens.len()).filter(|index| self.is_use(*index)) {
            let mut named = Vec::new();
            self.use_tree(index + 1, &mut Vec::new(), &mut named);
            let before = index.checked_sub(1).map(|before| self.tokens[before].text.as_str());
            let is_shown = matches!(before, Some("pub" | ")"));
            let is_whole = |index: usize, whole: &Named| {
                named.get(index + 1).is_none_or(|next: &Named| !next.path.starts_with(&whole.path))
            };
            let whole = named.iter().enumerate().filter(|(index, whole)| is_whole(*index, whole));
            uses.extend(whole.map(|(_, whole)| Used { named: whole.clone(), is_shown }));
        }
        uses
    }

    /// Every path of two or more words outside a `use`. `used` gets the paths of the `use` trees and their prefixes.
    pub fn inline_paths(&self, used: &mut Vec<Named>) -> Vec<Named> {
        let mut found = Vec::new();
        let mut index = 0;
        while index < self.tokens.len() {
            if self.is_use(index) {
                index = self.use_tree(index + 1, &mut Vec::new(), used);
            } else {
                index = self.inline_path(index, &mut found);
            }
        }
        found
    }

    fn is_use(&self, index: usize) -> bool {
        self.tokens[index].text == "use" && !self.has_at(index, &["use", "<"])
    }

    /// Reads one branch of a `use` from `index`, below `prefix`. Returns the index of its end.
    fn use_tree(&self, mut index: usize, prefix: &mut Vec<String>, found: &mut Vec<Named>) -> usize {
        let depth = prefix.len();
        while let Some(token) = self.tokens.get(index) {
            match token.text.as_str() {
                ":" => {}
                "{" => {
                    index += 1;
                    while self.tokens.get(index).is_some_and(|token| token.text != "}") {
                        index = self.use_tree(index, prefix, found);
                        index += usize::from(self.has_at(index, &[","]));
                    }
                }
                "as" => index += 1,
                "," | "}" | ";" => break,
                word => {
                    prefix.push(word.to_owned());
                    found.push(Named { path: prefix.clone(), line: token.line, build: token.build });
                }
            }
            index += 1;
        }
        prefix.truncate(depth);
        index
    }

    /// Reads a path such as `std::fs::read`, if one starts at `index`. Returns the next index to read.
    fn inline_path(&self, index: usize, found: &mut Vec<Named>) -> usize {
        let first = &self.tokens[index];
        let mut path = vec![first.text.clone()];
        let mut end = index + 1;
        while self.has_at(end, &[":", ":"]) && self.tokens.get(end + 2).is_some_and(Token::is_word) {
            path.push(self.tokens[end + 2].text.clone());
            end += 3;
        }
        let continues = index > 0 && self.tokens[index - 1].text == ":" && index > 1 && self.has_at(index - 2, &[":"]);
        if first.is_word() && path.len() > 1 && !continues {
            found.push(Named { path, line: first.line, build: first.build });
        }
        end
    }
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

fn flatten(stream: TokenStream, build: Build, tokens: &mut Vec<Token>, texts: &mut Vec<Token>) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    for (index, tree) in trees.iter().enumerate() {
        let line = tree.span().start().line;
        let mut push = |text: String, line| tokens.push(Token { text, line, build });
        match tree {
            TokenTree::Ident(word) => push(word.to_string(), line),
            TokenTree::Punct(sign) => push(sign.as_char().to_string(), line),
            TokenTree::Literal(literal) if !is_documentation(&trees[..index]) => {
                let text = literal.to_string().replace("\\\n", "");
                if text.contains('"') {
                    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                    texts.push(Token { text, line, build });
                }
            }
            TokenTree::Literal(_) => {}
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                push(open.into(), line);
                let inner = if is_test_module(&trees[..index]) { Build::Test } else { build };
                flatten(group.stream(), inner, tokens, texts);
                tokens.push(Token { text: close.into(), line: group.span().end().line, build });
            }
        }
    }
}

/// Whether the tokens before a literal are `doc =`, which a doc comment becomes.
fn is_documentation(before: &[TokenTree]) -> bool {
    let [.., name, sign] = before else { return false };
    name.to_string() == "doc" && sign.to_string() == "="
}

/// Whether the tokens before a body are `#[cfg(test)] mod name`.
fn is_test_module(before: &[TokenTree]) -> bool {
    let [.., attribute, keyword, _name] = before else { return false };
    keyword.to_string() == "mod" && attribute.to_string().replace(' ', "") == "[cfg(test)]"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let source = Source::parse("a.rs", text).expect("valid Rust");
        source.paths().iter().map(|named| named.path.join("::")).collect()
    }

    #[test]
    fn texts_are_string_literals_without_documentation() {
        let text = "//! No.\n/// No.\nfn f() { g(1, 'c', \"a \\\n    b\", format!(\"c {d}\")) }\n";
        let source = Source::parse("a.rs", text).expect("valid Rust");
        let texts: Vec<_> = source.texts.iter().map(|token| (token.line, token.text.as_str())).collect();
        assert_eq!(texts, [(3, "\"a b\""), (4, "\"c {d}\"")]);
    }

    #[test]
    fn use_trees_are_expanded() {
        let all = paths("pub use std::{fs::{self, File}, net::IpAddr as Ip};");
        for path in ["std::fs", "std::fs::File", "std::net::IpAddr"] {
            assert!(all.iter().any(|found| found == path), "{path} not in {all:?}");
        }
        assert!(!all.iter().any(|found| found.contains("fs::net") || found.contains("Ip::")), "{all:?}");
    }

    #[test]
    fn paths_in_code_are_found_and_strings_and_comments_are_not() {
        let text = "fn f() { std::fs::read(\"tokio::spawn\"); } // aya::maps\n";
        assert_eq!(paths(text), ["std::fs::read"]);
    }

    #[test]
    fn test_modules_are_told_apart() {
        let text = "fn f() { a::b() }\n#[cfg(test)]\nmod tests { fn g() { c::d() } }\nfn h() { e::f() }";
        let source = Source::parse("a.rs", text).expect("valid Rust");
        let builds: Vec<_> = source.paths().iter().map(|named| (named.line, named.build)).collect();
        assert_eq!(builds, [(1, Build::Product), (3, Build::Test), (4, Build::Product)]);
    }
}
