//! `graylag run`: puts the rooms together.
//!
//! Order matters: the socket is taken before the kernel is touched, so that a second agent fails at once; capabilities
//! are given up before the first thread starts, for they belong to threads; the collector has a thread of its own, so that
//! it is late for nobody.

mod attribution;
mod collector;
mod events;
mod faces;
mod logging;
mod path_map;
mod pins;
mod settings;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

pub use attribution::runtime as container_runtime;
pub use path_map::look as look_at_path_map;
pub use settings::{check_program_names, kernel_settings, softirq_threads, try_interfaces};

pub use crate::export::SettingsError as ExportSettingsError;

use crate::{
    collect::Collector,
    config::Config,
    engine::{Availability, Engine, Facts},
    export,
    feed::{Listening, Server, node},
    kernel::{Kernel, privileges},
    model::drops,
    probe::{address, stamp},
    view,
};
use collector::{Handle, Probers, now};
use faces::{Faces, Told};

/// Where the local API is unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/graylag/agent.sock";
/// How long the last telemetry may take to leave.
const LAST_EXPORT: Duration = Duration::from_secs(3);

/// Arguments of `graylag run`.
pub struct Arguments {
    /// Configuration file.
    pub config: Option<PathBuf>,
    /// Socket of the local API, over the configuration's; empty for none.
    pub socket: Option<PathBuf>,
    /// Whether to show the view.
    pub view: bool,
}

/// Runs the agent until it is told to stop.
pub fn run(arguments: &Arguments) -> Result<()> {
    let config = Config::load(arguments.config.as_deref())?;
    check_program_names(&config)?;
    let exporting = export::Settings::from_env()?;
    if arguments.view {
        view::available().context("--view")?;
    }
    let log = logging::start(arguments.view);
    let outcome = Agent::start(arguments, config, exporting).and_then(|agent| agent.until_stopped(arguments));
    log.print();
    outcome
}

struct Agent {
    config: Config,
    ids: settings::PeerIds,
    engine: Arc<Engine>,
    collector: Handle,
    runtime: tokio::runtime::Runtime,
    server: Arc<Server>,
    balancers: node::Balancers,
    exporter: Option<Arc<export::Handle>>,
    /// They end with this.
    probers: Probers,
    signals: Signals,
}

impl Agent {
    fn start(arguments: &Arguments, config: Config, exporting: Option<export::Settings>) -> Result<Self> {
        // Before the socket: who may not load programs often may not write to its directory either, and one remedy
        // serves for both.
        privileges::require()?;
        let socket =
            arguments.socket.clone().or_else(|| config.socket.clone()).filter(|p| !p.as_os_str().is_empty());
        let listening = Listening::bind(socket.as_deref(), config.listen)?;
        let asking = node::Listening::bind(config.node_health.listen, config.node_health.agent_check)?;
        // Before capabilities are given up: STAMP's port takes CAP_NET_BIND_SERVICE.
        let probing = settings::stamp_settings(&config)?
            .map(|settings| stamp::bind(config.stamp.listen, &settings))
            .transpose()?;
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signal handlers")?;

        let mut kernel_settings = kernel_settings(&config)?;
        let (pins, kept) = pins::open(&config, &kernel_settings.limits)?;
        let mut ids =
            kept.as_ref().map(|kept| settings::PeerIds::of_earlier(kept.peers())).unwrap_or_default();
        kernel_settings.peers = ids.prefixes(&config);
        let kernel = Kernel::start(&kernel_settings, drops::BENIGN, pins)?;
        if let Some(pins) = kernel.pins() {
            pins::tell(pins);
        }
        let path_map = path_map::open(&config)?;
        let capabilities =
            privileges::drop_after_attach(kernel.version(), !config.media_interfaces.is_empty())
                .context("giving up capabilities")?;
        tracing::debug!("capabilities kept: {capabilities:?}");
        let facts = Facts::of(&kernel, config.node.clone(), kernel_settings.limits);
        say_what_is_missing(&facts);
        let mut collector = Collector::new(kernel, &kernel_settings.limits, config.media_interfaces.clone());

        let engine = Arc::new(Engine::new(
            facts.clone(),
            ids.naming(&config),
            settings::judge_settings(&config),
            config.limits.subjects as usize,
            config.interval,
            now(),
        ));
        let asker = attribution::Asker::start(&config, &collector, &engine)?;
        // Before anybody can ask: what was said before must not be more than what is said now.
        if let Some(kept) = kept {
            let at = now().as_nanos() as u64;
            let seen = collector.look(at)?;
            let sockets = collector.sockets(at)?;
            engine.take_over(kept, config.limits.subjects as usize, &seen, &sockets);
        }
        if collector.kernel().pins().is_some() {
            collector.commit()?;
            engine.keep(now()).map_or(Ok(()), |kept| collector.save(&kept))?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("faces")
            .enable_all()
            .build()
            .context("tokio runtime")?;
        let guard = runtime.enter();
        let faces = Arc::new(Faces::new(engine.clone(), facts.clone(), config.interval));
        let server = Arc::new(Server::start(listening, faces.clone()).context("the local API")?);
        let balancers = node::Balancers::start(asking, faces.clone()).context("[node_health]")?;
        let exporter = exporting
            .map(|settings| export::start(&settings, &config.node, faces.clone()).map(Arc::new))
            .transpose()?;
        drop(guard);
        if let Some(exporter) = &exporter {
            events::announce_missing(&facts, exporter);
        }
        let told = Told::new(
            engine.clone(),
            server.clone(),
            exporter.clone(),
            // Somebody must hear of it: where there is neither view nor OTLP, standard output.
            !arguments.view && exporter.as_ref().is_none_or(|exporter| !exporter.takes_events()),
        );
        let stamp = probing.map(|bound| bound.start().map(Arc::new)).transpose()?;
        let addresses = settings::address_probes(&config);
        let addresses = (!addresses.is_empty())
            .then(|| address::Prober::start(&addresses).map(Arc::new).context("[[probe]]"))
            .transpose()?;
        let probers = Probers { stamp, addresses };
        let path_map = path_map.map(|map| path_map::Publisher::new(map, &config, &engine));
        let collector = Handle::start(
            collector,
            probers.clone(),
            (path_map, asker),
            engine.clone(),
            config.interval,
            told,
        )?;
        Ok(Self { config, ids, engine, collector, runtime, server, balancers, exporter, probers, signals })
    }

    fn until_stopped(mut self, arguments: &Arguments) -> Result<()> {
        let outcome = if arguments.view { self.show() } else { self.wait(arguments) };
        self.collector.stop();
        drop(self.probers);
        let server = self.server;
        let exporter = self.exporter;
        let balancers = self.balancers;
        self.runtime.block_on(async {
            if let Some(exporter) = exporter {
                exporter.shutdown(LAST_EXPORT).await;
            }
            balancers.stop().await;
            if let Ok(server) = Arc::try_unwrap(server) {
                server.stop().await;
            }
        });
        outcome
    }

    /// The view, until it is left or the process is told to stop.
    fn show(&mut self) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let signals = self.signals.handle();
        let thread = std::thread::Builder::new().name("signals".into()).spawn({
            let stop = stop.clone();
            let mut signals =
                std::mem::replace(&mut self.signals, Signals::new([SIGHUP]).context("signal handlers")?);
            move || {
                if signals.forever().any(|signal| signal != SIGHUP) {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        })?;
        let shown = view::run(&mut faces::Local(self.engine.clone()), &stop);
        signals.close();
        let _ = thread.join();
        shown.context("--view")
    }

    fn wait(&mut self, arguments: &Arguments) -> Result<()> {
        let handle = self.signals.handle();
        let signals =
            std::mem::replace(&mut self.signals, Signals::new([SIGHUP]).context("signal handlers")?);
        let mut signals = signals;
        for signal in signals.forever() {
            if signal == SIGHUP {
                self.reload(arguments);
            } else {
                break;
            }
        }
        handle.close();
        Ok(())
    }

    /// Reads the configuration again. Where it is wrong the old one stays.
    fn reload(&mut self, arguments: &Arguments) {
        let new = Config::load(arguments.config.as_deref())
            .map_err(anyhow::Error::from)
            .and_then(|config| check_program_names(&config).map(|()| config));
        let new = match new {
            Ok(new) => new,
            Err(error) => return tracing::error!("the configuration is not reloaded: {error:#}"),
        };
        let fixed = settings::needs_restart(&self.config, &new);
        if !fixed.is_empty() {
            tracing::warn!("changes of {} take a restart", fixed.join(", "));
        }
        // Names first: the kernel may count under a new peer as soon as it knows it.
        self.engine.reconfigure(self.ids.naming(&new), settings::judge_settings(&new));
        if let Err(error) = self.collector.replace_peers(self.ids.prefixes(&new), new.peers.clone()) {
            tracing::error!("the new peers could not be entered: {error:#}");
        }
        self.reload_probes(&new);
        tracing::info!("configuration reloaded: {} peers, {} services", new.peers.len(), new.services.len());
        self.config = new;
    }

    /// Targets, keys and who is answered. Where the keys cannot be read all of it stays as it is: without them nothing would
    /// be answered any more.
    fn reload_probes(&self, new: &Config) {
        let Some(prober) = &self.probers.stamp else { return };
        match settings::stamp_settings(new) {
            Ok(settings) => prober.reconfigure(&settings.unwrap_or_default()),
            Err(error) => tracing::error!("probes are not reloaded: {error}"),
        }
    }
}

fn say_what_is_missing(facts: &Facts) {
    for signal in facts.signals() {
        match facts.availability(signal) {
            Availability::Full => {}
            Availability::Partial(reason) => {
                tracing::warn!("{} is only partly available: {reason}", signal.name());
            }
            Availability::Missing(reason) => tracing::warn!("{} is not available: {reason}", signal.name()),
        }
    }
}

/// Calls `act` when the process is told to stop.
pub fn on_termination(act: impl Fn() + Send + 'static) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signal handlers")?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            act();
        }
    })?;
    Ok(())
}
