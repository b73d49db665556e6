//! `graylag check`: what this kernel and these privileges allow, and what is therefore missing.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::code;
use crate::{
    attribution::ask_once,
    config::{self, Config},
    engine::{Availability, Facts, release},
    kernel::{
        Kernel, PathMapPin, PinError, ProgramState, Watched, describe_pins, privileges, programs::Signal,
    },
    run,
};

#[derive(Serialize)]
struct Report {
    kernel: String,
    capabilities: Vec<Item>,
    environment: Vec<Item>,
    programs: Vec<Item>,
    signals: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    map_memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Item {
    name: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Item {
    fn new(name: impl Into<String>, state: &'static str, detail: Option<String>) -> Self {
        Self { name: name.into(), state, detail }
    }
}

/// Loads and attaches everything for a moment, and says what came of it.
pub fn check(config: Option<&Path>, json: bool) -> Result<u8> {
    let config = Config::load(config)?;
    run::check_program_names(&config)?;
    let settings = run::kernel_settings(&config)?;
    let mut report = Report {
        kernel: release(),
        capabilities: privileges::needed()
            .into_iter()
            .map(|(name, held)| Item::new(name, if held { "held" } else { "missing" }, None))
            .collect(),
        environment: Vec::new(),
        programs: Vec::new(),
        signals: Vec::new(),
        map_memory_bytes: None,
        error: None,
    };
    let code = match Kernel::start(&settings, crate::model::drops::BENIGN, None) {
        Ok(mut kernel) => {
            let mut facts = Facts::of(&kernel, config.node.clone(), settings.limits);
            report.environment = environment(&mut kernel);
            report.environment.push(attribution(&config, &facts));
            report.environment.extend(config.pin.as_deref().map(pins));
            report.environment.extend(run::try_interfaces(&config, &mut kernel)?.iter().map(interface));
            facts.unwatched = kernel.unwatched_interfaces();
            report
                .environment
                .extend(run::look_at_path_map(&config).map(|(path, found)| path_map(path, &found)));
            report.programs = facts.programs.iter().map(|(name, state)| program(name, state)).collect();
            report.signals = facts.signals().map(|signal| self::signal(&facts, signal)).collect();
            report.map_memory_bytes = Some(kernel.map_memory());
            if report.signals.iter().all(|s| s.state == "available") { code::OK } else { code::DEGRADED }
        }
        Err(error) => {
            report.error = Some(error.to_string());
            super::code_of_kernel(&error)
        }
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(code)
}

fn environment(kernel: &mut Kernel) -> Vec<Item> {
    let cgroup = match kernel.cgroup() {
        Some(root) if root.is_root => {
            Item::new("cgroup2", "available", Some(root.path.display().to_string()))
        }
        Some(root) => Item::new(
            "cgroup2",
            "partial",
            Some(format!(
                "{} is not the root: only sockets of this cgroup are seen; mount the host's",
                root.path.display()
            )),
        ),
        None => {
            Item::new("cgroup2", "missing", Some("mount one: mount -t cgroup2 none /sys/fs/cgroup".into()))
        }
    };
    let fentry = match kernel.probe_fentry() {
        Ok(()) => Item::new("fentry", "available", Some("not used".into())),
        Err(reason) => {
            let reason = reason.split(". Verifier").next().unwrap_or_default();
            Item::new("fentry", "refused", Some(format!("not used, costs no signal ({reason})")))
        }
    };
    let kprobes = if Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        Item::new("kprobes", "available", Some("not used".into()))
    } else {
        Item::new("kprobes", "absent", Some("not used, costs no signal".into()))
    };
    let softirqs = match run::softirq_threads() {
        0 => Item::new(
            "softirq lateness",
            "missing",
            Some("no ksoftirqd in sight: whether this host is late shows only in the agent's own delays; run it in the host's PID namespace".into()),
        ),
        n => Item::new("softirq lateness", "available", Some(format!("{n} ksoftirqd threads"))),
    };
    vec![
        Item::new("BTF", "available", Some("/sys/kernel/btf/vmlinux".into())),
        cgroup,
        fentry,
        kprobes,
        softirqs,
    ]
}

/// Where it is asked whose a network namespace is.
fn attribution(config: &Config, facts: &Facts) -> Item {
    const WITHOUT: &str = "uid and container from cgroups, no names";
    let item = |state, detail: String| Item::new("pods", state, Some(detail));
    if config.attribution == config::Attribution::Off {
        return item("off", "everything is the host's: attribution.source = \"off\"".into());
    }
    if let Availability::Missing(reason) | Availability::Partial(reason) =
        facts.availability(Signal::Attribution)
    {
        return item("missing", format!("everything is the host's: {reason}"));
    }
    let (Some(socket), missing) = run::container_runtime(config) else {
        let why = if config.attribution == config::Attribution::Cgroup {
            "attribution.source = \"cgroup\""
        } else {
            "no container runtime's socket in sight: mount it, or name it as attribution.cri_socket"
        };
        return item("partial", format!("{WITHOUT}: {why}"));
    };
    let place = socket.display();
    let asked = || ask_once(&socket).map_err(|error| format!("{place}: {error}"));
    match missing.map_or_else(asked, Err) {
        Ok(1) => item("available", format!("cgroups and {place}, which has 1 pod")),
        Ok(pods) => item("available", format!("cgroups and {place}, which has {pods} pods")),
        Err(error) => item("partial", format!("{WITHOUT}: {error}")),
    }
}

fn pins(directory: &Path) -> Item {
    let place = directory.display();
    match describe_pins(directory) {
        Some(what) => Item::new("pins", "there", Some(format!("{what} (rm -r {place} removes them)"))),
        None => Item::new("pins", "none", Some(format!("nothing in {place}"))),
    }
}

/// What stands where the map of path states is to be pinned.
fn path_map(path: &Path, found: &Result<PathMapPin, PinError>) -> Item {
    let (state, detail) = match found {
        Ok(PathMapPin::None) => ("available", "would be made".to_owned()),
        Ok(PathMapPin::Left) => ("available", "would be taken over, and emptied".to_owned()),
        Ok(PathMapPin::Other) => {
            ("available", "of another version or with other limits: would be replaced".to_owned())
        }
        Ok(PathMapPin::InUse) => ("available", "an agent writes to it now".to_owned()),
        Err(error) => ("refused", format!("{error}; {}", error.remedy())),
    };
    Item::new("path map", state, Some(format!("{}: {detail}", path.display())))
}

fn interface((name, outcome): &Watched) -> Item {
    let name = format!("interface {name}");
    match outcome {
        Ok(()) => Item::new(name, "available", Some("its media would be watched".into())),
        Err(reason) => Item::new(name, "refused", Some(reason.clone())),
    }
}

fn program(name: &str, state: &ProgramState) -> Item {
    match state {
        ProgramState::Attached => Item::new(name, "attached", None),
        ProgramState::NotNeeded { by } => Item::new(name, "not needed", Some(format!("{by} does its work"))),
        ProgramState::Disabled => Item::new(name, "disabled", Some("in the configuration".into())),
        ProgramState::Unavailable { reason } => Item::new(name, "unavailable", Some(reason.clone())),
    }
}

fn signal(facts: &Facts, signal: Signal) -> Item {
    match facts.availability(signal) {
        Availability::Full => Item::new(signal.name(), "available", None),
        Availability::Partial(reason) => Item::new(signal.name(), "partial", Some(reason)),
        Availability::Missing(reason) => Item::new(signal.name(), "missing", Some(reason)),
    }
}

fn print(report: &Report) {
    println!("kernel {}", report.kernel);
    for (title, items) in [
        ("capabilities", &report.capabilities),
        ("environment", &report.environment),
        ("programs", &report.programs),
        ("signals", &report.signals),
    ] {
        if !items.is_empty() {
            println!("\n{title}");
        }
        for item in items {
            println!("  {:24} {:12} {}", item.name, item.state, item.detail.as_deref().unwrap_or(""));
        }
    }
    if let Some(bytes) = report.map_memory_bytes {
        println!(
            "\nmaps take {:.1} MiB of kernel memory while graylag runs",
            bytes as f64 / f64::from(1 << 20)
        );
    }
    if let Some(error) = &report.error {
        println!("\ngraylag cannot run here: {error}");
        return;
    }
    let available = report.signals.iter().filter(|s| s.state == "available").count();
    println!("\n{available} of {} signals fully available", report.signals.len());
}
