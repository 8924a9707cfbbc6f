//! `plumbline run`: puts the parts together, starts them, waits for a signal, drains.

use std::sync::Arc;
use std::time::Duration;

use plumbline_sdk::{Applier, Batch, CopyMark, Error, ErrorKind, Event, Health, HealthState, History, Position, Result, TableId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::agenda::Agenda;
use crate::api::{self, ApiConfig};
use crate::builtin;
use crate::checks::{CheckPolicy, Checker, CheckerParts};
use crate::clock;
use crate::config::Config;
use crate::connectors::care_for;
use crate::copy::Copier;
use crate::desk::Desk;
use crate::group::{Membership, meet};
use crate::metrics::Metrics;
use crate::occurrences::Occurrences;
use crate::pipeline::{self, Line, drive, refresh_open, resume_from, set_health};
use crate::probe::Probe;
use crate::shared::{Shared, SharedParts};
use crate::state::State;
use crate::telemetry::ChangeTraces;
use crate::timed::timed;
use crate::unread::watch_unread;
use crate::validation::Options;
use crate::validation::follow::Follower;

/// A component that cannot be reached at the start is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Runs the agent until it is told to stop. `Rewound`: history lost its newest writes; a new start goes on from what it has.
pub async fn run(config: Config) -> Result<()> {
    config.require_databases()?;
    let api_config = ApiConfig::of(&config)?;
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|cause| Error::config(format!("`PLUMBLINE_LISTEN` is `{}`, where nobody can listen: another address or port would be accepted", config.listen)).caused_by(cause))?;
    let (stop_in, stop) = watch::channel(false);
    tokio::spawn(wait_for_signals(stop_in.clone()));

    let mut history = builtin::history(&config)?;
    // Without history there is nothing to go on from and nothing to show: an agent that cannot open it says so and ends.
    history.connect().await?;
    let history_warnings = history.warnings();
    let remembered = history.remembered().await?;
    let history_position = remembered.position.clone();
    let (commands_in, commands) = mpsc::channel(64);
    let traces = ChangeTraces::start(&config.otel, &config.pipeline)?;
    let membership = history.group().map(|group| {
        let naming = config.clone();
        Arc::new(Membership::new(group, config.listen.to_string(), Box::new(move |table| builtin::topic(&naming, table))))
    });
    let mut state = State::restore(remembered, config.apply);
    state.in_group = membership.is_some();
    let shared = Shared::new(SharedParts {
        pipeline: config.pipeline.clone(),
        started_micros: clock::now_micros(),
        state,
        membership,
        window_bytes: config.stream.window_bytes,
        commands: commands_in,
        history: Arc::from(history.reader()),
        config: serde_json::to_value(&config).unwrap_or_default(),
    });
    if config.has_redis() {
        set_health(&shared, "redis", HealthState::Up, Vec::new());
    }
    let outside = [("kafka", config.has_kafka()), ("connect", config.has_kafka() && !config.connect.url.is_empty())];
    for (component, _) in outside.into_iter().filter(|(_, used)| *used) {
        set_health(&shared, component, HealthState::Down, vec![crate::api::NOT_YET.into()]);
    }
    if !history_warnings.is_empty() {
        set_health(&shared, "history-setup", HealthState::Warning, history_warnings);
    }
    refresh_open(&shared).await;
    let metrics = Arc::new(Metrics::new(&config.pipeline, config.metrics.max_tables, traces.clone()));
    let occurrences = Arc::new(Occurrences::new(Arc::clone(&metrics), traces.clone(), config.has_redis()));
    let serving = tokio::spawn(api::serve(api_config, Arc::clone(&shared), Arc::clone(&metrics), listener, stop.clone()));
    tracing::info!(address = %config.listen, apply = config.apply, "listening: page, REST, /metrics and /docs");

    let parts = Parts { config: config.clone(), shared: Arc::clone(&shared), metrics, occurrences, stop: stop.clone(), commands };
    let mut worked = tokio::spawn(work(parts, history, history_position));
    let mut stopping = stop.clone();
    // It ends by itself only where a new start is needed.
    let by_itself = tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => None,
        ended = &mut worked => Some(ended),
    };
    stop_in.send_replace(true);
    let ended = match by_itself {
        Some(ended) => Ok(ended),
        None => {
            tracing::info!("stopping: draining what is queued");
            tokio::time::timeout(config.shutdown_deadline.0, worked).await
        }
    };
    let mut result = Ok(());
    match ended {
        Ok(Ok(Ok(()))) => tracing::info!("stopped in good order"),
        Ok(Ok(Err(error))) if error.kind() == ErrorKind::Rewound => result = Err(error),
        Ok(Ok(Err(error))) => tracing::warn!(error = error.chain(), "stopped"),
        Ok(Err(_)) => tracing::error!("a part of the agent failed while stopping"),
        Err(_) => tracing::warn!("the deadline for draining has passed; the next start goes on from the stored position"),
    }
    traces.flush(Duration::from_secs(3)).await;
    let _ = tokio::time::timeout(Duration::from_secs(1), serving).await;
    result
}

struct Parts {
    config: Config,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    occurrences: Arc<Occurrences>,
    stop: watch::Receiver<bool>,
    commands: mpsc::Receiver<crate::shared::Command>,
}

/// Everything behind the API. What fails here is shown there; the API goes on.
async fn work(parts: Parts, history: Box<dyn History>, history_position: Option<Position>) -> Result<()> {
    let shared = Arc::clone(&parts.shared);
    let mut stop = parts.stop.clone();
    let result = start(parts, history, history_position).await;
    if let Err(error) = &result
        && !*stop.borrow()
    {
        tracing::error!(error = error.chain(), "the line stopped: going on could lose or invent something");
        set_health(&shared, "line", HealthState::Down, vec![error.chain()]);
        if error.kind() == ErrorKind::Rewound {
            return result;
        }
        // A person must look; the page and REST stay up to say so.
        let _ = stop.wait_for(|stop| *stop).await;
    }
    result
}

async fn start(parts: Parts, history: Box<dyn History>, history_position: Option<Position>) -> Result<()> {
    let Parts { config, shared, metrics, occurrences, stop, commands } = parts;
    let (news_in, news) = mpsc::channel(64);
    let (orders_in, orders) = mpsc::channel(64);
    let (checks_in, checks) = mpsc::channel(16);
    let schemas = Arc::clone(&shared);
    if let Some(membership) = &shared.membership {
        tokio::spawn(meet(Arc::clone(membership), Arc::clone(&shared), stop.clone()));
    }
    let source = builtin::source(&config, Arc::new(move |id| schemas.picture().state.tables.get(id).filter(|table| !table.gone)?.schema.clone()), history.group())?;
    if let Some(aside) = source.aside {
        let _ = shared.aside.set(aside);
    }
    let readers = timed(builtin::readers(&config)?, Arc::clone(&metrics));
    if let Some(look) = source.kafka {
        metrics.watch_kafka(look);
        let naming = config.clone();
        let _ = shared.topic.set(Box::new(move |table| builtin::topic(&naming, table)));
    }
    metrics.watch_queue("news", &news_in);
    metrics.watch_queue("orders", &orders_in);
    metrics.watch_queue("checks", &checks_in);
    tokio::spawn(show_preflight(config.clone(), news_in.clone()));
    tokio::spawn(tick(Arc::clone(&shared), stop.clone()));
    tokio::spawn(watch_unread(Arc::clone(&shared), Arc::clone(&metrics), builtin::knows_place(&config), stop.clone()));
    let probed = builtin::readers(&config)?;
    let probe = Probe { shared: Arc::clone(&shared), metrics: Arc::clone(&metrics), source: builtin::log_probe(&config)?, target: Box::new(move || Ok(probed()?.1)), stop: stop.clone() };
    tokio::spawn(probe.run());
    let (connector_in, connector_orders) = mpsc::channel(4);
    let desk = Desk {
        connector: source.connector.as_ref().map(|_| connector_in),
        shared: Arc::clone(&shared),
        readers: Arc::clone(&readers),
        finder: source.finder,
        commands,
        checks: checks_in,
        line: orders_in.clone(),
        stop: stop.clone(),
    };
    tokio::spawn(desk.run());

    let mut applier = builtin::applier(&config)?;
    let mut copies: Vec<CopyMark> = Vec::new();
    let mut positions = vec![("history", history_position)];
    if let Some(applier) = &mut applier {
        let (position, begun) = connect_applier(applier, &shared, stop.clone()).await?;
        positions.push(("postgres-applier", position));
        copies = begun;
    }
    let resume = resume_from(&positions)?;
    if let (Some(applier), Some(("postgres-applier", None)), Some(begin)) = (&mut applier, positions.last(), &resume) {
        // A kill came between the first write of history and the first one of the target. Without a position of its own the target would not
        // be waited for at the next start either, and would miss what went by in between.
        let begin = Batch { position: Some(begin.clone()), ..Batch::default() };
        if let Err(error) = applier.write(&begin).await {
            tracing::warn!(error = error.chain(), "the target does not know yet where it begins");
        }
    }
    {
        let mut picture = shared.picture();
        for mark in copies {
            let table = picture.state.tables.entry(mark.table.clone()).or_default();
            table.copy = Some(mark);
        }
        picture.window.restart(resume.clone());
        if resume.is_some() {
            picture.state.applied.clone_from(&resume);
        }
    }
    if resume.is_some() {
        shared.applied.send_replace(resume.clone());
    }
    let copier = match &applier {
        // A connector reads existing rows itself.
        Some(_) if source.component == "mysql" => Some(Copier::new(readers()?.0)),
        _ => None,
    };
    let (batches_in, batches) = mpsc::channel(pipeline::QUEUE);
    metrics.watch_queue("stream", &batches_in);
    let (committed_in, committed) = watch::channel(None);
    if let Some(connector) = source.connector {
        tokio::spawn(care_for(connector, Arc::clone(&shared), news_in.clone(), connector_orders, stop.clone()));
    }
    tokio::spawn(drive(source.stream, source.component, resume, batches_in, committed, Arc::clone(&shared), stop.clone()));
    tokio::spawn(tell_of_tables(source.discovery, if source.component == "mysql" { "mysql-discovery" } else { "mysql" }, news_in.clone(), Arc::clone(&shared), stop.clone()));
    let agenda = Agenda::new(Arc::clone(&shared));
    tokio::spawn(agenda.clone().take_orders(checks, stop.clone()));
    let checker = Checker::new(CheckerParts {
        shared: Arc::clone(&shared),
        occurrences: Arc::clone(&occurrences),
        readers: Arc::clone(&readers),
        validator: builtin::validator()?,
        sink: builtin::other_sink(&config)?,
        policy: CheckPolicy {
            interval: config.checks.interval.0,
            settle: config.checks.settle.0,
            count_interval: config.checks.count_interval.0,
            discovery_interval: config.discovery_interval.0,
            options: Options { chunk_rows: config.checks.chunk_rows, max_findings: config.checks.max_findings, values: false },
            applies: config.apply,
            knows_place: builtin::knows_place(&config),
        },
        agenda,
        news: news_in.clone(),
        line: orders_in.clone(),
        stop: stop.clone(),
    });
    tokio::spawn(checker.run());
    let sink = builtin::other_sink(&config)?;
    if applier.is_some() || sink.is_some() {
        let follower = Follower {
            shared: Arc::clone(&shared),
            occurrences: Arc::clone(&occurrences),
            readers,
            validator: builtin::validator()?,
            sink,
            news: news_in,
            line: orders_in,
            stop: stop.clone(),
        };
        tokio::spawn(follower.run());
    }
    let line = Line { shared, occurrences, history, applier, copier, stream: batches, news, orders, committed: committed_in, stop };
    line.run().await
}

/// Tells the picture that time passes.
async fn tick(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    const TICK: Duration = Duration::from_millis(500);
    while tokio::time::timeout(TICK, stop.wait_for(|stop| *stop)).await.is_err() {
        shared.picture().state.tick(clock::now_micros());
    }
}

/// Connects the applier for as long as it takes, showing why not.
async fn connect_applier(applier: &mut Box<dyn Applier>, shared: &Shared, mut stop: watch::Receiver<bool>) -> Result<(Option<Position>, Vec<CopyMark>)> {
    loop {
        let connected = async {
            applier.connect().await?;
            Ok((applier.position().await?, applier.copies().await?))
        }
        .await;
        match connected {
            Ok(found) => {
                set_health(shared, "postgres", HealthState::Up, Vec::new());
                return Ok(found);
            }
            Err(error) => {
                let error: Error = error;
                set_health(shared, "postgres", HealthState::Down, vec![error.chain()]);
                if error.kind() == ErrorKind::Fatal {
                    return Err(error);
                }
                tracing::warn!(component = "postgres", error = error.chain(), "the target cannot be used yet");
                tokio::select! {
                    () = tokio::time::sleep(TRY_AGAIN) => {}
                    _ = stop.wait_for(|stop| *stop) => return Err(error),
                }
            }
        }
    }
}

/// Drives discovery: its news go to the line.
async fn tell_of_tables(mut discovery: Box<dyn plumbline_sdk::Source>, component: &'static str, news: mpsc::Sender<Vec<Event>>, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    const WAIT: Duration = Duration::from_millis(500);
    let mut connected = false;
    let mut answers: Option<bool> = None;
    loop {
        let next = async {
            if !connected {
                discovery.connect(None).await?;
                connected = true;
            }
            discovery.next(WAIT).await
        };
        let next = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            next = next => next,
        };
        match next {
            Ok(Some(batch)) => {
                let found: Vec<TableId> = batch.events.iter().filter_map(|event| if let Event::TableFound(schema) = event { Some(schema.id.clone()) } else { None }).collect();
                if !batch.events.is_empty() && news.send(batch.events).await.is_err() {
                    break;
                }
                if answers != Some(true) {
                    // With the binlog, `mysql` is as the stream is: only what discovery cannot do is told besides.
                    if answers.is_some() || component == "mysql" {
                        set_health(&shared, component, HealthState::Up, Vec::new());
                    }
                    answers = Some(true);
                }
                if !shared.picture().state.discovered && connected {
                    // Whoever sees that discovery has looked sees its tables.
                    while !found.iter().all(|id| shared.picture().state.tables.get(id).is_some_and(|table| table.schema.is_some())) && !*stop.borrow() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    shared.picture().state.discovered = true;
                    shared.touch();
                }
            }
            Ok(None) => break,
            Err(error) => {
                connected = false;
                answers = Some(false);
                set_health(&shared, component, HealthState::Down, vec![error.chain()]);
                tracing::warn!(component = "mysql-discovery", error = error.chain(), "the tables cannot be looked at");
                tokio::select! {
                    () = tokio::time::sleep(TRY_AGAIN) => {}
                    _ = stop.wait_for(|stop| *stop) => break,
                }
            }
        }
    }
    // The stop does not wait for how MySQL takes the goodbye.
    let _ = tokio::time::timeout(Duration::from_secs(1), discovery.close()).await;
}

/// Says once what preflight found, as the health of `mysql-setup` and its like.
async fn show_preflight(config: Config, news: mpsc::Sender<Vec<Event>>) {
    let checks = match builtin::preflight(&config).await {
        Ok(checks) => checks,
        Err(error) => {
            tracing::warn!(error = error.chain(), "preflight could not look");
            return;
        }
    };
    let mut events = Vec::new();
    for component in ["mysql", "postgres", "kafka", "connect"] {
        let messages: Vec<String> = checks.iter().filter(|check| check.component == component && check.state != "ok").map(|check| check.message.clone()).collect();
        if !messages.is_empty() {
            events.push(Event::Health(Health { component: format!("{component}-setup"), state: HealthState::Warning, messages }));
        }
    }
    if !events.is_empty() {
        let _ = news.send(events).await;
    }
}

/// The first signal stops in good order, the second one at once.
async fn wait_for_signals(stop: watch::Sender<bool>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("signals cannot be waited for: stop the agent by killing it, which loses nothing");
        return;
    };
    for stops in [false, true] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stops {
            std::process::exit(130);
        }
        stop.send_replace(true);
    }
}
