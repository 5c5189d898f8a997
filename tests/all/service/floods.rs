//! Clients that send too much, or nothing: they are turned away, and others are served.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_tests::host::{Home, Host};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::hostile;

const LONG: Duration = Duration::from_secs(20);

/// What is answered to these bytes until the connection is closed, at most its first kilobyte.
async fn answer(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut from, mut to) = stream.split();
    let mut answer = vec![0; 1024];
    let asked = async {
        // It may be closed in the middle.
        let write = async {
            to.write_all(request).await.ok();
            std::future::pending::<()>().await
        };
        tokio::select! {
            read = from.read(&mut answer) => read.unwrap_or_default(),
            () = write => unreachable!(),
        }
    };
    let read = timeout(LONG, asked).await.expect("an answer");
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

async fn serves_others(host: &Host<'_>, id: &str) {
    assert_eq!(host.get("/healthz").await.0, 200);
    assert_eq!(host.send("ok", id, "k", "").await.unwrap(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_over_the_limits_are_refused_by_both_listeners() {
    let home = Home::new(&hostile());
    let host = home.start().await;
    let many: String = (0..1_000).map(|i| format!("x-{i}: y\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(2 << 20));
    let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "z".repeat(2 << 20));
    for address in [host.admin(), host.ingress()] {
        for headers in [&many, &large] {
            let request = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
            let answer = answer(address, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        }
        let answer = answer(address, long.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 414 ") || answer.starts_with("HTTP/1.1 431 "),
            "{answer}"
        );
    }
    serves_others(&host, "e1").await;
    host.stop().await;
}

/// What is no HTTP, or two requests in one for whoever stands in between, is not answered as a request.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_by_both_listeners() {
    let home = Home::new(&hostile());
    let host = home.start().await;
    for address in [host.admin(), host.ingress()] {
        for request in [
            "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: localhost\r\n bad\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "GET / HTTP/9.9\r\nhost: localhost\r\n\r\n",
        ] {
            let answer = answer(address, request.as_bytes()).await;
            let status = answer.get(9..12).unwrap_or("closed");
            assert!(!answer.starts_with("HTTP/1.1 2"), "{request:?}: {answer}");
            assert!(
                status == "closed" || status.starts_with('4') || status.starts_with('5'),
                "{request:?}: {answer}"
            );
        }
    }
    serves_others(&host, "e1").await;
    host.stop().await;
}

/// Connections that only stand there do not keep others out: there is room for more of them than one client has ports in a hurry, and the
/// rest wait their turn instead of taking the files of the host.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_do_not_stop_events() {
    let home = Home::new(&hostile());
    let host = home.start().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(host.admin()).await.unwrap());
        idle.push(TcpStream::connect(host.ingress()).await.unwrap());
    }
    serves_others(&host, "e1").await;
    drop(idle);
    host.stop().await;
}
