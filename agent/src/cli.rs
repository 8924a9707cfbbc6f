//! What the command line offers, and its exit codes: 0 done, 1 differences found (`compare` only), 2 trouble.

mod compare;
mod inspect;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use plumbline_sdk::{Error, ErrorKind, Result};

use crate::agent;
use crate::config::{Config, LogFormat};
use crate::telemetry;

/// Tells, live and with proof, whether a PostgreSQL copy is true to its MySQL source.
#[derive(Debug, Parser)]
#[command(name = "plumbline", version, propagate_version = true, after_help = "Settings come from default.toml < --config FILE < environment < flags. Data goes to stdout, logs to stderr.")]
struct Arguments {
    /// A configuration file (TOML; see default.toml). Also `PLUMBLINE_CONFIG`.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print data as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Log more; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Log errors only.
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent: follow every change, compare both sides, serve REST, metrics and the live page.
    Run {
        /// Where to listen, instead of the setting `listen`.
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,
    },
    /// Check settings, connections, grants and servers' settings; say what is missing and how to mend it.
    CheckConfig,
    /// List the tables of both sides, and which would be watched.
    Discover,
    /// Compare tables without a running agent. Exit code 0: all proved equal; 1: differences; 2: trouble, or something could not be verified.
    Compare(compare::CompareArguments),
    /// Print changes from the binlog as they come.
    Events {
        /// Stop after so many changes.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// List the plugins.
    Plugins {
        #[command(subcommand)]
        command: Option<PluginCommand>,
    },
    /// Print the OpenAPI document of the REST API.
    Openapi,
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// List the plugins.
    List,
}

/// How a command ended, where it did not fail.
pub(crate) enum Outcome {
    /// 0.
    Done,
    /// 1: differences found.
    Differences,
    /// 2, and everything was said already.
    Trouble,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Of the whole process: every client of TLS that is not given one uses it, as that of traces does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // Help and version are no trouble.
            return ExitCode::from(u8::from(error.use_stderr()) * 2);
        }
    };
    match run(&arguments) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Differences) => ExitCode::from(1),
        Ok(Outcome::Trouble) => ExitCode::from(2),
        Err(error) => {
            if arguments.json {
                let _ = writeln!(std::io::stderr(), "{}", serde_json::json!({ "error": error.chain() }));
            } else {
                let _ = writeln!(std::io::stderr(), "plumbline: {}", error.chain());
            }
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Outcome> {
    match &arguments.command {
        Command::Openapi => return print(&crate::api::openapi().to_pretty_json().map_err(|cause| Error::fatal("the OpenAPI document cannot be written").caused_by(cause))?),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "plumbline", &mut std::io::stdout());
            return Ok(Outcome::Done);
        }
        Command::Plugins { command: None | Some(PluginCommand::List) } => return inspect::plugins(arguments.json),
        _ => {}
    }
    let mut config = Config::of_process(arguments.config.as_deref())?;
    if let Command::Run { listen: Some(listen) } = &arguments.command {
        config.listen.clone_from(listen);
    }
    let log = match (arguments.quiet, arguments.verbose) {
        (true, _) => "error",
        (false, 0) if matches!(arguments.command, Command::Run { .. }) => config.log.as_str(),
        (false, 0) => "warn",
        (false, 1) => "info,plumbline=debug",
        (false, _) => "trace",
    };
    telemetry::log_to_stderr(log, config.log_format == LogFormat::Json)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|cause| Error::fatal("no runtime could be started").caused_by(cause))?;
    runtime.block_on(async {
        match &arguments.command {
            Command::Run { .. } => match agent::run(config).await {
                Err(error) if error.kind() == ErrorKind::Rewound => Err(start_anew(&error)),
                ended => ended.map(|()| Outcome::Done),
            },
            Command::CheckConfig => inspect::check_config(&config, arguments.json).await,
            Command::Discover => inspect::discover(&config, arguments.json).await,
            Command::Compare(compare) => compare::compare(&config, compare, arguments.json).await,
            Command::Events { limit } => inspect::events(&config, *limit, arguments.json).await,
            Command::Openapi | Command::Completions { .. } | Command::Plugins { .. } => Ok(Outcome::Done),
        }
    })
}

/// Becomes a new start of the same program, with the same arguments: what this one knows is ahead of what its history has. Returns only where
/// that cannot be done.
fn start_anew(error: &Error) -> Error {
    use std::os::unix::process::CommandExt;
    tracing::warn!(error = error.chain(), "starting anew from what history has");
    // A store that goes back again and again must not keep a core busy.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let program = std::env::current_exe().unwrap_or_else(|_| name.unwrap_or_default().into());
    let cause = std::process::Command::new(program).args(arguments).exec();
    Error::fatal("history went back, and the agent could not start anew: start it again").caused_by(cause)
}

/// Prints a text as data. A closed pipe is the reader's wish, not trouble.
pub(crate) fn print(text: &str) -> Result<Outcome> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::config("standard output cannot be written").caused_by(cause)),
        _ => Ok(Outcome::Done),
    }
}

/// Whether a person looks at this stream and wants colour.
pub(crate) fn is_shown(stream: &impl IsTerminal) -> bool {
    stream.is_terminal()
}
