//! The way out: one nftables rule, written as the kernel's netlink messages,
//! because the `nft` program need not be there.
//!
//! In nft's own words:
//!
//! ```text
//! table ip devenv { chain out { type nat hook prerouting priority dstnat;
//!   ip protocol tcp ip daddr & 255.255.0.0 != 10.244.0.0
//!                   ip daddr & 255.255.0.0 != 10.96.0.0 redirect to :PORT } }
//! ```

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const NFPROTO_IPV4: u8 = 2;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NEW_CHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 3;
const NEW_RULE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 6;
const F_REQUEST: u16 = 0x1;
const F_ACK: u16 = 0x4;
const F_CREATE: u16 = 0x400;
const F_APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
/// NFT_REG_1, the register that the expressions hand values over in.
const REGISTER: u32 = 1;

/// Sends TCP connections that leave the pod and Service ranges to `port` of
/// the address they arrived at.
pub(crate) fn redirect_foreign_tcp(port: u16) -> io::Result<()> {
    let rule = [
        meta_l4_protocol(),
        compare(Comparison::Equal, &[6]),
        destination_network(),
        compare(Comparison::NotEqual, &[10, 244]),
        destination_network(),
        compare(Comparison::NotEqual, &[10, 96]),
        immediate(&port.to_be_bytes()),
        redirect(),
    ]
    .concat();
    let hook = [number(1, 0), number(2, (-100i32).cast_unsigned())].concat();
    let chain = [
        text(1, "devenv"),
        text(3, "out"),
        nested(4, &hook),
        text(7, "nat"),
    ]
    .concat();
    let rule = [text(1, "devenv"), text(2, "out"), nested(4, &rule)].concat();
    let batch = [
        message(BATCH_BEGIN, 0, 0, NFNL_SUBSYS_NFTABLES, &[]),
        message(NEW_TABLE, F_CREATE, NFPROTO_IPV4, 0, &text(1, "devenv")),
        message(NEW_CHAIN, F_CREATE, NFPROTO_IPV4, 0, &chain),
        message(
            NEW_RULE,
            F_CREATE | F_APPEND | F_ACK,
            NFPROTO_IPV4,
            0,
            &rule,
        ),
        message(BATCH_END, 0, 0, NFNL_SUBSYS_NFTABLES, &[]),
    ]
    .concat();

    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.send_to(&batch, &SocketAddr::new(0, 0), 0)?;
    // The acknowledgement, or the first error of the batch: header, then errno.
    let (reply, _) = socket.recv_from_full()?;
    let code = reply
        .get(16..20)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes)
        .ok_or_else(|| io::Error::other("a netfilter answer was too short"))?;
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(-code))
    }
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) -> Vec<u8> {
    let length = 20 + body.len() as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((F_REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]); // sequence and port: answers are not told apart
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn expression(name: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    nested(
        1,
        &[text(1, name), nested(2, &attributes.concat())].concat(),
    )
}

fn meta_l4_protocol() -> Vec<u8> {
    const NFT_META_L4PROTO: u32 = 16;
    expression("meta", &[number(2, NFT_META_L4PROTO), number(1, REGISTER)])
}

/// The first two bytes of the destination address.
fn destination_network() -> Vec<u8> {
    const NETWORK_HEADER: u32 = 1;
    expression(
        "payload",
        &[
            number(1, REGISTER),
            number(2, NETWORK_HEADER),
            number(3, 16),
            number(4, 2),
        ],
    )
}

enum Comparison {
    Equal = 0,
    NotEqual = 1,
}

fn compare(how: Comparison, with: &[u8]) -> Vec<u8> {
    expression(
        "cmp",
        &[
            number(1, REGISTER),
            number(2, how as u32),
            nested(3, &attribute(1, with)),
        ],
    )
}

fn immediate(value: &[u8]) -> Vec<u8> {
    expression(
        "immediate",
        &[number(1, REGISTER), nested(2, &attribute(1, value))],
    )
}

fn redirect() -> Vec<u8> {
    expression("redir", &[number(1, REGISTER)])
}
