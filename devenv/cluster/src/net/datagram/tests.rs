//! Over real sockets of loopback, on paused time.

use super::*;

struct Local;

impl Towards for Local {
    async fn towards(&self, endpoint: SocketAddrV4) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(endpoint).await?;
        Ok(socket)
    }
}

async fn socket() -> (UdpSocket, SocketAddrV4) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let SocketAddr::V4(addr) = socket.local_addr().expect("an address") else {
        panic!("an IPv4 socket");
    };
    (socket, addr)
}

/// Answers each datagram with its own name and whom it saw.
async fn server(name: &'static str) -> SocketAddrV4 {
    let (socket, addr) = socket().await;
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        loop {
            let (_, from) = socket.recv_from(&mut buffer).await.expect("a datagram");
            let answer = format!("{name} {from}");
            socket.send_to(answer.as_bytes(), from).await.expect("sent");
        }
    });
    addr
}

struct Fixture {
    front: SocketAddrV4,
    balancer: Arc<Balancer>,
    _stop: tokio_util::sync::DropGuard,
}

async fn front(endpoints: &[SocketAddrV4]) -> Fixture {
    let (socket, front) = socket().await;
    let balancer = Arc::new(Balancer::default());
    balancer.set(endpoints.to_vec(), None);
    let stop = CancellationToken::new();
    tokio::spawn(serve(socket, Local, balancer.clone(), stop.clone()));
    Fixture {
        front,
        balancer,
        _stop: stop.drop_guard(),
    }
}

struct Client(UdpSocket);

impl Client {
    async fn of(fixture: &Fixture) -> Client {
        let (socket, _) = socket().await;
        // What does not come from the front's own address is dropped by the kernel.
        socket.connect(fixture.front).await.expect("connected");
        Client(socket)
    }

    /// Who answered, and whom it saw.
    async fn ask(&self) -> (String, String) {
        self.0.send(b"?").await.expect("sent");
        let mut buffer = [0; 64];
        let len = self.0.recv(&mut buffer).await.expect("an answer");
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        let (name, from) = text.split_once(' ').expect("two words");
        (name.to_owned(), from.to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn clients_keep_their_endpoint_and_get_its_answers() {
    let fixture = front(&[server("a").await, server("b").await]).await;
    let clients = [Client::of(&fixture).await, Client::of(&fixture).await];
    let first = [clients[0].ask().await, clients[1].ask().await];
    assert_eq!((&first[0].0[..], &first[1].0[..]), ("a", "b"));
    for _ in 0..3 {
        assert_eq!([clients[0].ask().await, clients[1].ask().await], first);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_went_is_left_at_once() {
    let (a, b) = (server("a").await, server("b").await);
    let fixture = front(&[a, b]).await;
    let client = Client::of(&fixture).await;
    assert_eq!(client.ask().await.0, "a");
    fixture.balancer.set(vec![b], None);
    assert_eq!(client.ask().await.0, "b");
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_it_was_silent_for_long() {
    let fixture = front(&[server("a").await]).await;
    let client = Client::of(&fixture).await;
    let (_, first) = client.ask().await;
    tokio::time::sleep(REPLIED - Duration::from_secs(1)).await;
    assert_eq!(client.ask().await.1, first, "each datagram counts anew");
    tokio::time::sleep(REPLIED - Duration::from_secs(1)).await;
    assert_eq!(client.ask().await.1, first);
    tokio::time::sleep(REPLIED + Duration::from_secs(1)).await;
    assert_ne!(client.ask().await.1, first);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_answers_ends_sooner() {
    let (silent, addr) = socket().await;
    let fixture = front(&[addr]).await;
    let client = Client::of(&fixture).await;
    let mut seen = Vec::new();
    for pause in [
        Duration::ZERO,
        UNREPLIED / 2,
        UNREPLIED + Duration::from_secs(1),
    ] {
        tokio::time::sleep(pause).await;
        client.0.send(b"?").await.expect("sent");
        let mut buffer = [0; 8];
        seen.push(silent.recv_from(&mut buffer).await.expect("a datagram").1);
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[1], seen[2]);
}

#[tokio::test(start_paused = true)]
async fn there_are_never_too_many_sessions() {
    let (socket, _) = socket().await;
    let balancer = Arc::new(Balancer::default());
    balancer.set(vec![server("a").await], None);
    let (ended_tx, _ended_rx) = mpsc::unbounded_channel();
    let mut sessions = Sessions::new(Arc::new(socket), Local, balancer, ended_tx);
    let client = |n: u16| SocketAddrV4::new([10, 244, 0, 9].into(), n);
    let many = u16::try_from(MOST).expect("small") + 20;
    for n in 1..=many {
        sessions.of(client(n)).await.expect("opened");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(sessions.open.len(), MOST);
    assert!(!sessions.open.contains_key(&client(20)), "the oldest went");
    assert!(sessions.open.contains_key(&client(21)));
}
