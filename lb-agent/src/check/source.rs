//! Checks the source: a folder that can be read, or an API server that answers and grants what is needed.

use std::path::Path;

use super::finding::Finding;
use crate::args::CheckArgs;
use crate::model::Kind;
use crate::source::claim::Claim;
use crate::source::kube::{Denied, Error, Pace, Settings, denied};

const CHECK: &str = "source";
const RIGHTS: &str = "api-rights";

/// Nothing is tried if no source is named.
pub fn findings(args: &CheckArgs) -> anyhow::Result<Vec<Finding>> {
    let Some(source) = &args.source else { return Ok(Vec::new()) };
    if let Some(path) = source.strip_prefix("dir:") {
        return Ok(vec![folder(Path::new(path))]);
    }
    if !source.eq_ignore_ascii_case("kube") {
        let found = format!("{source:?} is no source");
        return Ok(vec![Finding::fail(CHECK, found, "write --source=kube or --source=dir:PATH")]);
    }
    let hostname = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let node_name = args.node_name.clone().unwrap_or_else(hostname);
    let kubeconfig = args.kubeconfig.clone();
    let settings = Settings { kubeconfig, node_name, claim: Claim::Unlabelled, pace: Pace::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(api(runtime.block_on(denied(&settings))))
}

fn folder(path: &Path) -> Finding {
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let is_read = |path: &Path| {
                path.extension().is_some_and(|kind| ["yaml", "yml", "json"].iter().any(|known| kind == *known))
            };
            let files = entries.filter_map(Result::ok).filter(|entry| is_read(&entry.path())).count();
            let found = format!("{} has {files} files of YAML or JSON", path.display());
            if files > 0 {
                return Finding::ok(CHECK, found);
            }
            Finding::warn(CHECK, found, "put Services, EndpointSlices and the Node of this node there")
        }
        Err(error) => {
            let found = format!("the folder {} cannot be read: {error}", path.display());
            Finding::fail(CHECK, found, "make the folder, or name another one by --source=dir:PATH")
        }
    }
}

fn api(denied: Result<Vec<Denied>, Error>) -> Vec<Finding> {
    let denied = match denied {
        Err(error) => {
            let text = error.to_string();
            let (found, remedy) = text.rsplit_once("; ").unwrap_or((&text, "correct --kubeconfig"));
            return vec![Finding::fail(CHECK, found, remedy)];
        }
        Ok(denied) => denied,
    };
    if denied.is_empty() {
        let found = "Services, EndpointSlices and this Node can be listed and watched";
        return vec![Finding::ok(CHECK, "the API server answers"), Finding::ok(RIGHTS, found)];
    }
    denied.iter().map(refused).collect()
}

fn refused(denied: &Denied) -> Finding {
    let Denied { kind, verb, reason } = denied;
    let plural = match kind {
        Kind::Service => "services",
        Kind::Endpoints => "endpoints",
        Kind::EndpointSlice => "endpointslices.discovery.k8s.io",
        Kind::Node => "nodes",
    };
    let found = format!("{verb} {plural}: {reason}");
    if denied.is_forbidden() {
        return Finding::fail(RIGHTS, found, "apply deploy/rbac.yaml: a ClusterRole with get, list and watch");
    }
    Finding::fail(CHECK, found, "check the address and credentials of the kubeconfig, and that the API server runs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    #[test]
    fn a_folder_is_looked_into() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(self::folder(folder.path()).verdict, Verdict::Warn);
        std::fs::write(folder.path().join("a.yaml"), "").expect("it is writable");
        assert_eq!(self::folder(folder.path()).verdict, Verdict::Ok);
        assert_eq!(self::folder(Path::new("/nonexistent/folder")).verdict, Verdict::Fail);
    }

    #[test]
    fn what_the_api_denies_is_named_with_the_remedy() {
        let denied = |verb, reason: &str| Denied { kind: Kind::EndpointSlice, verb, reason: reason.into() };
        assert!(api(Ok(Vec::new())).iter().all(|finding| finding.verdict == Verdict::Ok));
        let rights = api(Ok(vec![denied("watch", "endpointslices is forbidden: User \"x\"")])).remove(0);
        assert_eq!((rights.check, rights.verdict), (RIGHTS, Verdict::Fail));
        assert!(rights.found.starts_with("watch endpointslices.discovery.k8s.io: ") && rights.remedy.contains("rbac"));
        let away = api(Ok(vec![denied("list", "connection refused")])).remove(0);
        assert_eq!((away.check, away.verdict), (CHECK, Verdict::Fail));
        let none = api(Err(Error::InCluster { problem: "no token".into() })).remove(0);
        assert!(none.remedy.starts_with("give --kubeconfig"), "{none:?}");
    }
}
