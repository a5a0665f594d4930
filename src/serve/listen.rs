//! Connections: taken in, served, ended. Those that neither send nor take anything for too long are closed.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_io_timeout::TimeoutStream;

/// Pause after a connection could not be taken in: the process may hold as many files as it is let.
const PAUSE: Duration = Duration::from_millis(500);

/// Serves until `stop`, then ends when the requests that were taken in are answered. `patience`: time a client is given for
/// the head of a request, also for the next one of a connection, and for taking a piece of a response.
pub(super) async fn serve(listener: TcpListener, router: Router, patience: Duration, stop: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience);
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("a connection was not taken in: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Pieces of an answer are to be seen when they are there.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(patience));
        let service = TowerToHyperService::new(router.clone());
        let connection = connections.watch(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::info!("a connection ended: {error}");
            }
        });
    }
    // Nobody is to wait for a connection that is never taken in.
    drop(listener);
    connections.shutdown().await;
}
