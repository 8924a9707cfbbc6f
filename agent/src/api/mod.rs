//! REST, the live page and `/metrics`. Reads State and History; what needs a database is asked of the desk.

mod body;
mod checks;
mod connectors;
mod document;
mod events;
mod feed;
mod findings;
mod guard;
mod health;
mod legacy;
mod monitor;
mod negotiate;
mod page;
mod problem;
mod scrape;
mod server;
mod summary;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use plumbline_sdk::{Error, Result, Secret, TableId};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::shared::Shared;
use crate::state::State;
use guard::Session;
use problem::Problem;
use server::Limits;
pub(crate) use summary::{NOT_YET, blockers};

/// A request body above this is refused.
const BODY_LIMIT: usize = 1024 * 1024;
/// Seconds after which it is worth asking again for a place.
const RETRY: u16 = 5;

/// What the API is told of the settings.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Where it listens.
    pub listen: String,
    /// The bearer token; None: none is asked for.
    pub token: Option<Secret>,
    /// Host names by which it may be called, besides loopback and the listen address.
    pub hosts: Vec<String>,
    /// The watched database.
    pub database: String,
    /// How often tables are looked at.
    pub discovery_interval: Duration,
}

impl ApiConfig {
    /// From the settings; refuses to listen elsewhere than on loopback without a token.
    pub fn of(config: &Config) -> Result<Self> {
        check_listen(&config.listen, !config.token.is_empty(), config.insecure)?;
        Ok(Self {
            listen: config.listen.clone(),
            token: Some(config.token.clone()).filter(|token| !token.is_empty()),
            hosts: config.hosts.clone(),
            database: config.mysql.database.clone(),
            discovery_interval: config.discovery_interval.0,
        })
    }
}

/// Whether it is safe to listen here.
pub fn check_listen(listen: &str, token: bool, insecure: bool) -> Result<()> {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host).trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if loopback || token || insecure {
        return Ok(());
    }
    Err(Error::config(format!(
        "`PLUMBLINE_LISTEN` is `{listen}`, which others can reach: set `PLUMBLINE_TOKEN`, or listen on `127.0.0.1`; `PLUMBLINE_INSECURE=true` serves without a token all the same"
    )))
}

/// What every handler has.
#[derive(Clone)]
pub(crate) struct App {
    pub shared: Arc<Shared>,
    pub metrics: Arc<Metrics>,
    pub config: Arc<ApiConfig>,
    pub limits: Arc<Limits>,
    /// None: no token is asked for.
    session: Option<Arc<Session>>,
    viewers: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl App {
    /// The ground of one router. Streams end when `stop` says so.
    fn new(config: ApiConfig, shared: Arc<Shared>, metrics: Arc<Metrics>, limits: Limits, stop: watch::Receiver<bool>) -> Self {
        let session = config.token.clone().map(|token| Arc::new(Session::new(token)));
        let viewers = Arc::new(Semaphore::new(limits.viewers));
        Self { shared, metrics, config: Arc::new(config), limits: Arc::new(limits), session, viewers, stop }
    }

    /// A place for one more stream of events, as long as the permit is held.
    fn viewer(&self) -> std::result::Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.viewers)
            .try_acquire_owned()
            .map_err(|_| Problem::unavailable(format!("{} streams are open, and the agent serves no more at once; close one, or ask again later", self.limits.viewers)).retry_after(RETRY))
    }

    /// Ends when the agent stops.
    async fn stopped(mut self) {
        let _ = self.stop.wait_for(|stop| *stop).await;
    }

    /// The table that a request names, `shop.orders` or `orders`, in the catalog's spelling.
    pub fn table(&self, name: &str) -> std::result::Result<TableId, Problem> {
        // A table that is there can be asked for, however odd its name.
        if let Some(id) = find(&self.shared.picture().state, name) {
            return Ok(id);
        }
        check_name(name)?;
        Err(Problem::not_found(format!("there is no table `{name}`")))
    }
}

fn find(state: &State, name: &str) -> Option<TableId> {
    let mut same = state.tables.iter().filter(|(id, _)| *id.table == *name || id.to_string() == name);
    let first = same.next()?;
    // A table that is there comes before one of the same name that is gone.
    Some(if first.1.gone { same.next().map_or_else(|| first.0.clone(), |second| second.0.clone()) } else { first.0.clone() })
}

/// Whether a text can be a table's name at all: `table` or `schema.table`, where the points may be part of either name.
fn check_name(name: &str) -> std::result::Result<(), Problem> {
    let is_name = |part: &str| (1..=64).contains(&part.chars().count());
    let fits = is_name(name) || name.match_indices('.').any(|(at, _)| is_name(&name[..at]) && is_name(&name[at + 1..]));
    if fits && !name.contains('\0') && name.split('.').all(|part| !part.is_empty()) {
        return Ok(());
    }
    Err(Problem::unprocessable("this is not a table's name: one has 1 to 64 characters, with its database before a point if need be"))
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(document::Document::openapi())
        .routes(routes!(health::health))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(scrape::metrics))
        .routes(routes!(scrape::metrics_json))
        .routes(routes!(monitor::status))
        .routes(routes!(monitor::setup))
        .routes(routes!(monitor::add_table))
        .routes(routes!(monitor::discover_tables))
        .routes(routes!(legacy::cdc_status))
        .routes(routes!(legacy::setup_dynamic))
        .routes(routes!(legacy::latest_records))
        .routes(routes!(legacy::stats))
        .routes(routes!(legacy::table_stats))
        .routes(routes!(legacy::cdc_events))
        .routes(routes!(legacy::validate))
        .routes(routes!(legacy::sync_check))
        .routes(routes!(legacy::kafka_status))
        .routes(routes!(legacy::debezium_status))
        .routes(routes!(legacy::migration_log))
        .routes(routes!(tables::list))
        .routes(routes!(tables::one))
        .routes(routes!(tables::pause))
        .routes(routes!(tables::resume))
        .routes(routes!(checks::list, checks::start))
        .routes(routes!(checks::one, checks::cancel))
        .routes(routes!(connectors::list))
        .routes(routes!(connectors::one, connectors::remove))
        .routes(routes!(connectors::pause))
        .routes(routes!(connectors::resume))
        .routes(routes!(connectors::stop))
        .routes(routes!(connectors::restart))
        .routes(routes!(findings::list))
        .routes(routes!(events::list))
        .routes(routes!(events::stream))
        .routes(routes!(summary::plugins))
        .routes(routes!(summary::cutover))
        .routes(routes!(summary::config))
        .routes(routes!(page::snapshot))
        .routes(routes!(page::stream))
}

/// The OpenAPI document, from the handlers.
pub fn openapi() -> utoipa::openapi::OpenApi {
    document::complete(routes().into_openapi())
}

pub(crate) fn router(app: App) -> Router {
    let (routes, document) = routes().split_for_parts();
    routes
        .merge(page::assets())
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document::complete(document)))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        // The innermost comes first.
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn_with_state(app.clone(), guard::in_time))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(app.clone(), guard::admit))
        .layer(middleware::from_fn_with_state(app.clone(), guard::measure))
        .layer(middleware::from_fn(guard::finish))
        .layer(CompressionLayer::new().gzip(true))
        .with_state(app)
}

/// Serves until told to stop.
pub async fn serve(config: ApiConfig, shared: Arc<Shared>, metrics: Arc<Metrics>, listener: TcpListener, stop: watch::Receiver<bool>) -> Result<()> {
    let limits = Limits::default();
    let app = App::new(config, shared, metrics, limits.clone(), stop.clone());
    server::run(listener, router(app), &limits, stop).await;
    Ok(())
}
