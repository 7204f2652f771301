//! The agent started again with another `--attach`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lb_agent::dataplane::hooks::Hooks;
use lb_agent::dataplane::links::{Attachment, Class, LinkHeader};
use lb_agent::dataplane::{AttachBy, Hook, Xdp};
use lb_tests::address::{FAMILIES, vip};
use lb_tests::control::{classifiers, has_qdisc, tcx_programs};
use lb_tests::dial::{Dial, Held, Outcome};
use lb_tests::lab::Setup;
use lb_tests::scene::{BALANCER, Scene};

/// The interfaces of the pods of each scene.
const PODS: [&str; 3] = ["cali-client", "cali-a", "cali-b"];

/// A connection that always has something to say. A transfer at full speed would delay the kernel's grace periods, which
/// the agent waits for, by many seconds.
pub struct Talk {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize, String>>,
}

impl Talk {
    pub fn over(mut held: Held) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut words = 0;
            while !told.load(Ordering::SeqCst) {
                held.echo("still here?")?;
                words += 1;
                thread::sleep(Duration::from_millis(1));
            }
            Ok(words)
        });
        Self { stop, thread }
    }

    /// The number of exchanges, or the error that ended the connection.
    pub fn stop(self) -> Result<usize, String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("it does not panic")
    }
}

/// Each packet is translated by one program only, and no connection is lost, whichever way was used before.
#[test]
fn switching_between_tcx_and_clsact_leaves_one_program_at_a_hook() {
    let mut scene = Scene::start(Setup::new("clsswitch"));
    scene.publish("shop", 73, "VIP", &["a", "b"]);
    let mut held = FAMILIES.map(|family| scene.dial().held(vip(family, 73, 80)));
    let talks = FAMILIES.map(|family| Talk::over(scene.dial().held(vip(family, 73, 80))));
    for way in ["clsact", "tcx", "clsact", "auto"] {
        scene.agent.crash();
        scene.agent.set_flags(&["--attach", way]);
        scene.agent.start();
        let is_tcx = way != "clsact";
        for interface in PODS {
            let classifiers = classifiers(&scene.lab.node, interface);
            let wanted = if is_tcx { (2, 0) } else { (0, 2) };
            assert_eq!((tcx_programs(&scene.lab.node, interface), classifiers.len()), wanted, "{way}: {classifiers:?}");
            assert_eq!(has_qdisc(&scene.lab.node, interface), !is_tcx, "{way}: {interface}");
            let rows = scene.agent.rows("interfaces");
            let row = rows.iter().find(|row| row["interface"] == interface).expect("it is listed");
            assert_eq!(row["attached_by"], if is_tcx { "tcx" } else { "clsact" });
        }
        for held in &mut held {
            held.transfer(1 << 16).expect("an idle connection survives");
        }
        for family in FAMILIES {
            scene.expect_all(vip(family, 73, 80), &["a", "b"]);
        }
    }
    for talk in talks {
        let words = talk.stop().expect("a connection in use survives");
        assert!(words > 100, "{words} exchanges");
    }
}

/// An agent that is killed while it switches an interface leaves the hook shut. The next one opens it at once, long before
/// it knows all objects.
#[test]
fn a_hook_that_was_left_shut_is_opened() {
    let mut scene = Scene::with_flags(Setup::new("clsshut"), &["--attach", "clsact"]);
    scene.publish("shop", 74, "VIP", &["a"]);
    scene.agent.crash();
    let (pins, node) = (scene.agent.pin_path().to_owned(), scene.lab.node.clone());
    let index = node.inside(|| nix::net::if_::if_nametoindex(PODS[0])).expect("the interface is there");
    let (hook, header) = (Hook::Ingress, LinkHeader::Ethernet);
    let attachment = Attachment { ifindex: index, class: Class::Workload, hook, header };
    let adopt = || {
        Hooks::adopt(&pins, &pins.join("links"), &pins.join("maps"), AttachBy::Clsact, Xdp::Off)
            .expect("they are ours")
            .0
    };
    let client = scene.lab.pod("client").netns.clone();
    let dial = || Dial::from(&client).tcp(vip(FAMILIES[0], 74, 80));

    node.inside(|| adopt().shut(attachment)).expect("root may");
    assert_eq!(dial(), Outcome::Silence);
    assert!(!node.inside(|| adopt().attached()).contains(&attachment), "it is opened, and has no program");
    assert_eq!(dial().who(), Some(BALANCER));
    scene.agent.start();
    assert_eq!(dial().who(), Some("a"));
}
