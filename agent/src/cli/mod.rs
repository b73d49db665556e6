//! The command line. Arguments in, exit code out; what commands do is in the rooms.

mod check;
mod clients;
mod pages;
mod probe_address;
mod probe_stamp;

pub use clients::plain;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    config::{self, Config, ConfigError},
    feed,
    kernel::KernelError,
    probe::{
        address::{ResolveError, RoundError},
        stamp::KeyFileError,
    },
    run, telemetry,
};

/// Exit codes, as `graylag --help` states them.
mod code {
    /// Done; for `check`: everything is available.
    pub const OK: u8 = 0;
    /// Something went wrong; for `probe`: nothing was answered.
    pub const FAILED: u8 = 1;
    /// The command line or the configuration is wrong (2 is clap's own as well).
    pub const USAGE: u8 = 2;
    /// `check`: works, with signals missing.
    pub const DEGRADED: u8 = 3;
    /// This kernel or these privileges do not allow it at all.
    pub const IMPOSSIBLE: u8 = 4;
}

/// eBPF host network health: which destination hangs its handshakes, which accepts and does not speak, which service
/// slowed down, what this host drops — and whose fault it is.
#[derive(Parser)]
#[command(name = "graylag", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done (check: everything available), 1 failed (probe: no answer),\n\
    2 wrong arguments or configuration, 3 (check) works with signals missing,\n\
    4 not possible on this kernel or with these privileges.\n\
    Telemetry goes where the standard OTEL_* variables say; diagnostics go to stderr, as much as RUST_LOG says.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch this host: attach, judge, export, serve the local API
    Run {
        #[command(flatten)]
        config: ConfigArgument,
        /// Unix socket of the local API (overrides api.socket; empty: none)
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// Show the live terminal view
        #[arg(long)]
        view: bool,
    },
    /// Live terminal view of a running agent
    Top {
        #[command(flatten)]
        socket: SocketArgument,
    },
    /// What a running agent knows, once
    Status {
        #[command(flatten)]
        socket: SocketArgument,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Only whether it looks at the kernel as it should (/healthz): exit code 0, or 1 and why not
        #[arg(long, conflicts_with_all = ["json", "ready"])]
        healthy: bool,
        /// Only whether it sees what it should (/readyz): exit code 0, or 1 and why not
        #[arg(long, conflicts_with = "json")]
        ready: bool,
    },
    /// Full state, then transitions as they happen
    Watch {
        #[command(flatten)]
        socket: SocketArgument,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// What this kernel and these privileges allow, and what is therefore missing
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Probe once, like ping; needs no agent and no root
    Probe {
        #[command(subcommand)]
        command: ProbeCommand,
    },
    /// The metric catalog
    Catalog {
        /// As JSON
        #[arg(long, conflicts_with = "markdown")]
        json: bool,
        /// As docs/catalog.md
        #[arg(long, hide = true)]
        markdown: bool,
    },
    /// The JSON Schema of what the local API says and takes
    Schema,
    /// Check or print the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Completions of the command line, for a shell to read
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// The manual pages, as files
    #[command(hide = true)]
    Manual {
        /// Where to write them
        directory: PathBuf,
    },
}

#[derive(Subcommand)]
enum ProbeCommand {
    /// Loss and delay in each direction, to a STAMP Session-Reflector (RFC 8762)
    Stamp {
        /// Address or name of the reflector, with a port where that is not 862
        target: String,
        /// Test packets to send
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        /// Time between two of them, on average, 10ms to 10s
        #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = config::probe_interval)]
        interval: Duration,
        /// Pre-shared keys, one a line, hexadecimal or base64; without, packets are not authenticated
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Connections to every address of a target: which of them does not let one in
    Tcp {
        #[command(flatten)]
        arguments: AddressArguments,
    },
    /// TLS handshakes with every address of a target; certificates are checked against the system's roots
    Tls {
        #[command(flatten)]
        arguments: AddressArguments,
    },
}

#[derive(Args)]
struct AddressArguments {
    /// Name or address, with a port (for tls, 443 where there is none)
    target: String,
    /// Attempts to each address, each from another local port; one that fails is made once more from the same
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    count: u64,
    /// Attempts to one address at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    at_once: u16,
    /// Time for a handshake, TCP's and TLS's each, 10ms to 10s; below a second one SYN is all an attempt has
    #[arg(long, value_name = "DURATION", default_value = "900ms", value_parser = config::probe_interval)]
    timeout: Duration,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Says whether it can be used
    Check {
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Prints it with every default filled in
    Print {
        #[command(flatten)]
        config: ConfigArgument,
    },
}

#[derive(Args)]
struct ConfigArgument {
    /// Configuration file [default: /etc/graylag/graylag.toml where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct SocketArgument {
    /// Unix socket of the agent
    #[arg(long, value_name = "PATH", default_value = run::DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let code = match dispatch(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // Where the terminal is gone there is nobody to tell, and `eprintln!` would panic.
            let _ = writeln!(io::stderr(), "graylag: {error:#}");
            code_of(&error)
        }
    };
    ExitCode::from(code)
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run { config, socket, view } => {
            run::run(&run::Arguments { config: config.config, socket, view })?;
        }
        Command::Top { socket } => clients::top(&socket.socket)?,
        Command::Status { socket, healthy: true, .. } => clients::affirms(&socket.socket, "/healthz")?,
        Command::Status { socket, ready: true, .. } => clients::affirms(&socket.socket, "/readyz")?,
        Command::Status { socket, json, .. } => clients::status(&socket.socket, json)?,
        Command::Watch { socket, json } => clients::watch(&socket.socket, json)?,
        Command::Check { config, json } => return check::check(config.config.as_deref(), json),
        Command::Probe { command: ProbeCommand::Stamp { target, count, interval, key_file, json } } => {
            let key_file = key_file.as_deref();
            return probe_stamp::stamp(&probe_stamp::StampRound {
                target: &target,
                count,
                interval,
                key_file,
                json,
            });
        }
        Command::Probe { command: ProbeCommand::Tcp { arguments } } => {
            return probe_address::round(&arguments, false);
        }
        Command::Probe { command: ProbeCommand::Tls { arguments } } => {
            return probe_address::round(&arguments, true);
        }
        Command::Catalog { json: true, .. } => println!("{:#}", telemetry::json()),
        Command::Catalog { markdown: true, .. } => print!("{}", telemetry::markdown()),
        Command::Catalog { .. } => print!("{}", telemetry::plain()),
        Command::Schema => println!("{:#}", feed::schema()),
        Command::Config { command: ConfigCommand::Check { config } } => {
            let config = Config::load(config.config.as_deref())?;
            run::check_program_names(&config)?;
            println!(
                "fine: peers {}, services {}, connections at most {}",
                config.peers.len(),
                config.services.len(),
                config.limits.connections
            );
        }
        Command::Config { command: ConfigCommand::Print { config } } => {
            print!("{}", Config::print(config.config.as_deref())?);
        }
        Command::Completions { shell } => pages::completions(Arguments::command(), shell)?,
        Command::Manual { directory } => pages::manual(Arguments::command(), &directory)?,
    }
    Ok(code::OK)
}

fn code_of(error: &anyhow::Error) -> u8 {
    let is_target = matches!(error.downcast_ref(), Some(ResolveError::Target(_)))
        || matches!(error.downcast_ref(), Some(RoundError::Name(_)));
    if is_target
        || error.is::<ConfigError>()
        || error.is::<run::ExportSettingsError>()
        || error.is::<KeyFileError>()
    {
        code::USAGE
    } else {
        error.downcast_ref().map_or(code::FAILED, code_of_kernel)
    }
}

/// A map that cannot be read or written is an accident; everything else this kernel or these privileges do not allow.
const fn code_of_kernel(error: &KernelError) -> u8 {
    match error {
        KernelError::Map { .. } => code::FAILED,
        _ => code::IMPOSSIBLE,
    }
}
