//! `completion`: what a shell needs to complete our command line, from its definition.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::{CommandLine, CompletionArgs};
use crate::print::print;

pub fn run(args: &CompletionArgs) -> anyhow::Result<()> {
    print(&script(args.shell))
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "lb-agent", &mut script);
    let script = String::from_utf8_lossy(&script);
    // clap_complete 4.6 spells the dash of a program's name in two ways, so nothing matches (clap-rs/clap#6421).
    script.replace("lb__subcmd__agent", "lb__agent")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_has_a_script_with_every_subcommand() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for word in ["explain", "unload", "print-config", "nodeport-addresses"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn bash_completes_words() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lb-agent.bash");
        std::fs::write(&path, script(Shell::Bash)).expect("it is writable");
        for (words, expected) in [("lb-agent expl", "explain"), ("lb-agent run --pri", "--print-config")] {
            let complete = format!(
                "set -eu; source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
                 words=($(complete -p lb-agent)); while [[ ${{words[0]}} != -F ]]; do words=(${{words[@]:1}}); done; \
                 ${{words[1]}} lb-agent \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\"",
                path.display()
            );
            let output = Command::new("bash").arg("-c").arg(complete).output().expect("bash is installed");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{words}: {said}");
        }
    }
}
