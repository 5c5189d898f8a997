//! Connections to a listener, bounded in number and in idleness, so that clients that only hold connections open can't use up the files
//! of the whole host, nor keep others out for ever.
//!
//! The idleness is measured on the connection and not by the HTTP server above it, whose own limit is one of HTTP/1 alone and does not
//! begin before it has seen which version the client speaks.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// A listener that accepts no more than so many connections at once; further ones wait in the system's own queue.
#[derive(Debug)]
pub(crate) struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    idle: Duration,
}

impl Bounded {
    /// Bounds a listener: at most `max` connections. Each is closed after nothing came or went for `idle`, and after twice that if nothing
    /// went: a client that sends its request byte by byte has that long for it.
    pub(crate) fn new(listener: TcpListener, max: usize, idle: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Self {
            listener,
            permits,
            idle,
        }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed; were it, a connection would go uncounted.
        let permit = self.permits.clone().acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Answers are one small write each: waiting to fill a packet only delays them. Without it they arrive all the same.
        stream.set_nodelay(true).ok();
        let connection = Connection {
            stream,
            idle: self.idle,
            idle_until: Box::pin(sleep(self.idle)),
            unanswered_until: Box::pin(sleep(self.idle * 2)),
            _permit: permit,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that gives its place back when it is dropped.
pub(crate) struct Connection {
    stream: TcpStream,
    idle: Duration,
    idle_until: Pin<Box<Sleep>>,
    unanswered_until: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn came(&mut self) {
        let again = sleep(self.idle);
        self.idle_until.as_mut().set(again);
    }

    fn went(&mut self) {
        self.came();
        let again = sleep(self.idle * 2);
        self.unanswered_until.as_mut().set(again);
    }

    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        // Both are asked, so that both wake.
        let (idle, unanswered) = (
            self.idle_until.as_mut().poll(cx),
            self.unanswered_until.as_mut().poll(cx),
        );
        idle.is_ready() || unanswered.is_ready()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.came();
            return polled;
        }
        if self.is_overdue(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if polled.is_ready() {
            self.went();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    async fn start(max: usize, idle: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let router = axum::Router::new().fallback(|| async { "here" });
        tokio::spawn(axum::serve(Bounded::new(listener, max, idle), router).into_future());
        address
    }

    /// Asks on a new connection, keeps it open, and returns it once it is answered.
    async fn ask(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .expect("written");
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200");
        stream
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_until_another_ends() {
        let address = start(2, LONG).await;
        let (first, _second) = timeout(LONG, async { (ask(address).await, ask(address).await) })
            .await
            .expect("in time");
        let third = tokio::spawn(ask(address));
        assert!(
            timeout(Duration::from_millis(100), ask(address)).await.is_err(),
            "no place for it"
        );
        assert!(!third.is_finished());
        drop(first);
        timeout(LONG, third).await.expect("in time").expect("answered");
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_closed() {
        let address = start(1, Duration::from_millis(50)).await;
        let mut silent = TcpStream::connect(address).await.expect("connects");
        let mut rest = Vec::new();
        timeout(LONG, silent.read_to_end(&mut rest))
            .await
            .expect("in time")
            .ok();
        assert!(rest.is_empty());
        timeout(LONG, ask(address)).await.expect("its place is free again");
    }

    /// Each byte gave it the whole time again.
    #[tokio::test]
    async fn a_connection_that_sends_its_request_byte_by_byte_is_closed() {
        for beginning in ["GET / HTTP/1.1\r\nx-slow: ", "PRI * HTTP/2"] {
            let address = start(1, Duration::from_millis(100)).await;
            let mut slow = TcpStream::connect(address).await.expect("connects");
            let closed = async {
                for byte in beginning.bytes().chain(std::iter::repeat(b'a')) {
                    let pause = timeout(Duration::from_millis(20), slow.read_u8());
                    if slow_is_closed(pause.await) {
                        return;
                    }
                    slow.write_all(&[byte]).await.ok();
                }
            };
            timeout(LONG, closed).await.expect("in time");
            timeout(LONG, ask(address)).await.expect("its place is free again");
        }
    }

    fn slow_is_closed(read: Result<io::Result<u8>, tokio::time::error::Elapsed>) -> bool {
        match read {
            Ok(Ok(byte)) => panic!("an answer begins with {byte}"),
            Ok(Err(_)) => true,
            Err(_) => false,
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_answered_is_kept() {
        let address = start(1, Duration::from_millis(400)).await;
        let mut stream = timeout(LONG, ask(address)).await.expect("in time");
        // Three times as long as one without an answer is.
        for _ in 0..12 {
            let mut rest = [0; 1024];
            let pause = async { while stream.read(&mut rest).await.expect("it is open") > 0 {} };
            assert!(
                timeout(Duration::from_millis(200), pause).await.is_err(),
                "it was closed"
            );
            let request = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
            request.await.expect("it is open");
        }
    }
}
