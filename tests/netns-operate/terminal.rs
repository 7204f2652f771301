//! `show` and `top` on terminals of their own, which `script` makes.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use lb_tests::address::{Family, vip};
use lb_tests::agent;
use lb_tests::deadline;
use lb_tests::scene::Scene;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a program sends when it gives the whole screen back.
const SCREEN_IS_BACK: &str = "\u{1b}[?1049l";

/// A command on a terminal.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    said: Arc<Mutex<String>>,
}

impl Terminal {
    #[track_caller]
    fn start(scene: &Scene, (columns, rows): (u16, u16), words: &str) -> Self {
        let (program, pins) = (agent::program(), scene.agent.pin_path().display().to_string());
        let line = format!(
            "stty cols {columns} rows {rows}; echo pid $$ here; exec {} {words} --pin-path {pins}",
            program.display()
        );
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]).env("TERM", "xterm");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = scene.lab.node.inside(|| command.spawn()).expect("script is installed");
        let keys = child.stdin.take().expect("a pipe");
        let mut output = child.stdout.take().expect("a pipe");
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            let mut piece = [0; 4_096];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..length]);
                heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { child, keys, said }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[track_caller]
    fn wait_for(&self, word: &str) {
        deadline::until_true(word, || self.said().contains(word));
    }

    /// Waits for its end; returns all that it said.
    #[track_caller]
    fn ended(mut self) -> String {
        deadline::until_true("its end", || self.child.try_wait().is_ok_and(|status| status.is_some()));
        let status = self.child.wait().expect("it has ended");
        assert!(status.success(), "{status}: {}", self.said());
        self.said()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, unless the test panics.
        let _ = self.child.kill();
    }
}

/// A Service in VIP mode at number 1 has a flow.
#[track_caller]
pub fn fits(scene: &Scene) {
    for columns in [60, 80, 140] {
        let shown = Terminal::start(scene, (columns, 24), "show frontends");
        shown.wait_for("here");
        let said = shown.ended();
        let mut lines = said.lines().skip(1);
        assert!(lines.all(|line| line.trim_end().chars().count() <= columns.into()), "{columns}:\n{said}");
        assert!(said.contains(&vip(Family::V4, 1, 80).to_string()) && !said.contains("PORT-ID"), "{said}");
    }
}

/// `top` draws, obeys a key and a signal, and gives the terminal back.
#[track_caller]
pub fn top(scene: &Scene) {
    let mut by_key = Terminal::start(scene, (110, 30), "top --interval-secs 1");
    by_key.wait_for("default/short:web");
    by_key.keys.write_all(b"q").expect("it reads");
    let said = by_key.ended();
    assert!(said.contains("an agent runs") && said.contains(SCREEN_IS_BACK), "{said:?}");
    let by_signal = Terminal::start(scene, (110, 30), "top --interval-secs 1");
    by_signal.wait_for("default/short:web");
    let said = by_signal.said();
    let pid = said.split_whitespace().skip_while(|word| *word != "pid").nth(1).and_then(|pid| pid.parse().ok());
    kill(Pid::from_raw(pid.expect("its number")), Signal::SIGTERM).expect("it runs");
    assert!(by_signal.ended().contains(SCREEN_IS_BACK));
    let refused = scene.agent.ask(&["top"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("show frontends --watch"), "{refused:?}");
}
