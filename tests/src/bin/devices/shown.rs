//! What `show interfaces` says.

use lb_tests::scene::Scene;
use serde_json::Value;

/// `show interfaces`.
pub struct Shown(Vec<Value>);

impl Shown {
    pub fn read(scene: &Scene) -> Self {
        Self(scene.agent.rows("interfaces"))
    }

    /// Checks the class of an interface, and that the reason contains these words. With a class, both hooks have a program.
    #[track_caller]
    pub fn expect(&self, name: &str, class: &str, why: &str) {
        let row = self.0.iter().find(|row| row["interface"] == name);
        let row = row.unwrap_or_else(|| panic!("{name} is not listed: {:#?}", self.0));
        let hooks = row["hooks"].as_array().map_or(0, Vec::len);
        let is_why = row["why"].as_str().is_some_and(|said| said.contains(why));
        assert!(
            row["class"].as_str().unwrap_or("-") == class && is_why && hooks == if class == "-" { 0 } else { 2 },
            "{name}: {row}"
        );
    }
}
