//! Shows that each rule notices a missing target and accepts an existing one.

use super::*;

const RULES: &str = "# The contract\n\n| ID | what |\n|---|---|\n| IPM-60 | an ID in a cell: TERM-09 |\n| IPM-61 | x |\n\
                     ## Upstream's own `tests`\n```\n# no heading\n```\n";

fn wrong(path: &str, text: &str) -> Vec<String> {
    let files = [(CONTRACT, RULES), ("README.md", "## Tests\n"), ("deploy/rbac.yaml", ""), ("deploy/README.md", "")];
    let found = Citable::of(files).check(path, text);
    found.into_iter().map(|violation| format!("{}: {}", violation.line, violation.what)).collect()
}

fn assert_wrong(path: &str, text: &str, expected: &str) {
    let found = wrong(path, text);
    assert!(found.len() == 1 && found[0].contains(expected), "{path}: {text}: {found:?}");
}

fn assert_right(path: &str, text: &str) {
    assert_eq!(wrong(path, text), [""; 0], "{path}: {text}");
}

#[test]
fn an_id_is_a_rule_of_the_contract() {
    for path in ["lb-agent/src/plan.rs", "README.md", "deploy/rbac.yaml", "tests/script/a.txtar", "Cargo.toml"] {
        assert_wrong(path, "\n// IPM-62: no.", "2: IPM-62 is no rule");
    }
    assert_right(
        "lb-agent/src/plan.rs",
        "// IPM-60, (IPM-61); IPM-60: UTF-8, CVE-2020-8554, KEP-1860, IPM-600, XIPM-6",
    );
    assert_right("docs/LICENSE-MIT", "IPM-62");
}

#[test]
fn an_id_of_an_unknown_family_is_noticed() {
    assert_wrong("lb-agent/src/plan.rs", "// QQ-01", "QQ-01");
    assert_right("lb-agent/src/plan.rs", "const PORT_80: u16 = 80; // qq_01");
}

#[test]
fn a_rule_is_a_row_of_its_own() {
    assert_wrong("lb-agent/src/plan.rs", "// TERM-09", "TERM-09");
}

#[test]
fn names_of_tests_and_files_cite_as_well() {
    assert_wrong("tests/netns/flips.rs", "fn ipm_60_62_flips() {}", "IPM-62");
    assert_wrong("tests/script/ipm-63-flip.txtar", "a case", "IPM-63");
    assert_right("tests/script/ipm-60-flip.txtar", "fn ipm_60_61_flips() {} fn equipm_99() {}");
}

#[test]
fn a_section_of_something_else_is_no_citation() {
    assert_wrong("lb-agent/src/plan.rs", "// As it must be (spec 2.3).", "by its ID");
    assert_wrong("lb-agent/src/plan.rs", "/// Spec 2.5 to 2.7", "by its ID");
    assert_right("lb-agent/src/plan.rs", "// RFC 8200 section 4.5; spec.ports[0]; the spec is 2 lines");
}

#[test]
fn a_document_that_a_source_names_exists() {
    assert_wrong("lb-agent/src/plan.rs", "//! `design.md` says so.", "design.md");
    assert_wrong("lb-agent/src/plan.rs", "//! docs/contract.md#nothing.", "#nothing");
    assert_wrong("lb-agent/src/plan.rs", "//! docs/contract.md#no-heading", "#no-heading");
    assert_right(
        "lb-agent/src/plan.rs",
        "//! (docs/contract.md#upstreams-own-tests), README.md#tests, deploy/README.md.",
    );
    assert_right("deploy/rbac.yaml", "# See README.md.");
}

#[test]
fn links_lead_to_files() {
    assert_wrong("README.md", "[a](docs/none.md) and [b](docs/contract.md)", "docs/none.md");
    assert_wrong("README.md", "[a](docs/contract.md#none)", "#none");
    assert_wrong("README.md", "[a](#none)", "#none");
    assert_wrong("docs/contract.md", "[a](README.md)", "README.md");
    assert_wrong("docs/contract.md", "[a](../../README.md)", "README.md");
    assert_right(
        "docs/contract.md",
        "[a](../README.md#tests), [b](../deploy), [c](https://x.example/y.md), [d](../deploy/)",
    );
    assert_right("README.md", "[a](#tests)");
}

#[test]
fn paths_in_documents_exist() {
    assert_wrong("README.md", "the table in `lb-common/src/none.rs`", "none.rs");
    assert_right("README.md", "`deploy/`, `deploy/rbac.yaml`, `tests/script/vendor-*.txtar`, `target/debug`");
}
