//! Links, addresses and routes of this process's network namespace, by
//! synchronous rtnetlink requests.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The loopback link has this index in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// The table of addresses that belong to this namespace.
const RT_TABLE_LOCAL: u8 = 255;

/// A request socket. It belongs to the network namespace it was made in.
pub(crate) struct Route {
    socket: Socket,
    sequence: u32,
}

impl Route {
    pub fn new() -> io::Result<Route> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Route {
            socket,
            sequence: 0,
        })
    }

    /// Index of the link with this name.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.into()));
        self.request(RouteNetlinkMessage::GetLink(link), NLM_F_ACK)?
            .into_iter()
            .find_map(|reply| match reply {
                RouteNetlinkMessage::NewLink(link) => Some(link.header.index),
                _ => None,
            })
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub fn up(&mut self, index: u32) -> io::Result<()> {
        let mut link = up_link();
        link.header.index = index;
        self.request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK)
            .map(drop)
    }

    /// A bridge, up; returns its index. Its hardware address is fixed, because
    /// otherwise it would follow the ports that come and go, and what the pods
    /// have learned about their gateway would be wrong.
    pub fn bridge(&mut self, name: &str, mac: [u8; 6]) -> io::Result<u32> {
        let mut link = up_link();
        link.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        self.create(RouteNetlinkMessage::NewLink(link))?;
        self.index(name)
    }

    /// A pair of links: `name` here, up and on the bridge, and `peer` in the
    /// network namespace of process `pid`, with the hardware address `mac`.
    pub fn veth(
        &mut self,
        name: &str,
        bridge: u32,
        peer: &str,
        mac: [u8; 6],
        pid: u32,
    ) -> io::Result<()> {
        let mut other = LinkMessage::default();
        other.attributes = vec![
            LinkAttribute::IfName(peer.into()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::NetNsPid(pid),
        ];
        let mut link = up_link();
        link.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Controller(bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(link))
    }

    /// A pair of links: `name` here with the hardware address `mac`, and `peer` in the
    /// network namespace `there`.
    pub fn veth_into(
        &mut self,
        name: &str,
        mac: [u8; 6],
        peer: &str,
        there: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut other = LinkMessage::default();
        other.attributes = vec![
            LinkAttribute::IfName(peer.into()),
            LinkAttribute::NetNsFd(there.as_raw_fd()),
        ];
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(link))
    }

    /// Puts a link on a bridge, up.
    pub fn attach(&mut self, index: u32, bridge: u32) -> io::Result<()> {
        let mut link = up_link();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::Controller(bridge)];
        self.request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK)
            .map(drop)
    }

    pub fn address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(address)),
            AddressAttribute::Address(IpAddr::V4(address)),
        ];
        self.create(RouteNetlinkMessage::NewAddress(message))
    }

    pub fn default_route(&mut self, gateway: Ipv4Addr) -> io::Result<()> {
        let mut route = route();
        route
            .attributes
            .push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        self.create(RouteNetlinkMessage::NewRoute(route))
    }

    /// Makes every address of a range one of this namespace's own, so that
    /// sockets can be bound to it without adding addresses one by one.
    pub fn local_route(&mut self, range: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut route = route();
        route.header.table = RT_TABLE_LOCAL;
        route.header.kind = RouteType::Local;
        route.header.scope = RouteScope::Host;
        route.header.destination_prefix_length = prefix;
        route
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::Inet(range)));
        route.attributes.push(RouteAttribute::Oif(LOOPBACK));
        self.create(RouteNetlinkMessage::NewRoute(route))
    }

    fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
            .map(drop)
    }

    /// Sends one request and collects the replies up to its acknowledgement.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut replies = Vec::new();
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                // Messages start at multiples of four bytes.
                let length = (reply.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if reply.header.sequence_number != self.sequence {
                    continue;
                }
                match reply.payload {
                    NetlinkPayload::Error(answer) if answer.code.is_none() => return Ok(replies),
                    NetlinkPayload::Error(answer) => return Err(answer.to_io()),
                    NetlinkPayload::Done(_) => return Ok(replies),
                    NetlinkPayload::InnerMessage(inner) => replies.push(inner),
                    _ => {}
                }
            }
        }
    }
}

fn up_link() -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn route() -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Static;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route
}
