//! The arguments of `completion`.

use clap::Args;
use clap_complete::Shell;

#[derive(Debug, Args)]
#[command(after_help = "For bash: lb-agent completion bash > /etc/bash_completion.d/lb-agent")]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}
