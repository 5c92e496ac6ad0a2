//! What the front ends cannot be made to do.

use std::net::{IpAddr, Ipv4Addr};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::dibs::loopback::DmbLimits;

async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

fn without_devices() -> SmcConfig {
    SmcConfig::new().stack(Stack::new(Vec::new()))
}

/// The devices have gone since the option was asked for: an application that merely echoed it must not get a Decline.
#[tokio::test]
async fn nothing_to_propose_is_no_data() {
    let (mut client, mut server) = connection().await;
    let outcome = connect_by_option(&mut client, &without_devices()).await.unwrap();
    assert!(outcome.is_none(), "{outcome:?}");
    drop(client);
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert!(got.is_empty(), "{got:?}");
}

/// A server that is known to expect CLC gets what it expects.
#[tokio::test]
async fn nothing_to_propose_is_a_decline_with_prior_knowledge() {
    let (mut client, mut server) = connection().await;
    let outcome = connect(&mut client, &without_devices()).await.unwrap();
    let code = DeclineCode::NO_DEVICE;
    assert!(matches!(outcome, Outcome::Tcp(FallbackReason::Declined(declined)) if declined == code));
    drop(client);
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert!(matches!(Message::parse(&got), Ok(Message::Decline(decline)) if decline.diagnosis == code));
}

#[test]
fn only_who_has_something_to_propose_asks() {
    let peer = IpAddr::from(Ipv4Addr::LOCALHOST);
    let asks =
        |config: SmcConfig| config.option_peers(["127.0.0.0/8".parse().unwrap()]).asks_for_option(peer);
    let with_device = || SmcConfig::new().stack(Stack::with_loopback(DmbLimits::default()).unwrap());
    assert!(asks(with_device()));
    assert!(!asks(without_devices()));
    assert!(!with_device().asks_for_option(peer), "not among the peers");
}
