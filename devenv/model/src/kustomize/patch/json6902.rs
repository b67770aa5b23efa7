//! JSON Patch (RFC 6902) on a tree with positions.

use crate::node::{Data, MAX_DEPTH, Node, shortened};
use crate::problem::Draft;
use crate::source::Span;

/// Boxed: an error is rare and large.
type Patched<T> = Result<T, Box<Draft>>;

/// How many values the operations of one patch may put in: `copy` can double an object
/// again and again.
const MAX_ADDED: usize = 100_000;

/// Applies all operations in turn.
pub(super) fn apply(patch: &Node, object: &mut Node) -> Patched<()> {
    let mut budget = MAX_ADDED;
    patch
        .items()
        .iter()
        .try_for_each(|op| one(op, object, &mut budget))
}

fn one(op: &Node, object: &mut Node, budget: &mut usize) -> Patched<()> {
    let name = text(op, "op")?;
    let at = pointer(op, "path")?;
    match name {
        "add" => add(object, &at, value(op)?, budget),
        "replace" => {
            remove(object, &at)?;
            add(object, &at, value(op)?, budget)
        }
        "remove" => remove(object, &at).map(drop),
        "move" => {
            let moved = remove(object, &pointer(op, "from")?)?;
            add(object, &at, moved, budget)
        }
        "copy" => {
            let copied = find(object, &pointer(op, "from")?)?.clone();
            add(object, &at, copied, budget)
        }
        "test" => {
            let wanted = value(op)?;
            let found = find(object, &at)?;
            if found.same_value(&wanted) {
                return Ok(());
            }
            Err(fail(
                at.span,
                format!("the test of {} fails: it is {}", at.text, found.described()),
            ))
        }
        other => {
            let span = op.get("op").map_or(op.span, |n| n.span);
            Err(Box::new(
                Draft::error(
                    "kustomize::patch",
                    span,
                    format!("{} is no JSON 6902 operation", shortened(other)),
                )
                .expected("add, remove, replace, move, copy or test"),
            ))
        }
    }
}

fn fail(span: Span, message: String) -> Box<Draft> {
    Box::new(Draft::error("kustomize::patch", span, message))
}

fn text<'n>(op: &'n Node, key: &str) -> Patched<&'n str> {
    op.str_at(&[key]).ok_or_else(|| {
        fail(
            op.span,
            format!("this operation has no `{key}`, or it is no string"),
        )
    })
}

fn value(op: &Node) -> Patched<Node> {
    op.get("value")
        .cloned()
        .ok_or_else(|| fail(op.span, "this operation has no `value`".into()))
}

/// A JSON pointer (RFC 6901) and where it is written.
struct Pointer<'n> {
    text: &'n str,
    tokens: Vec<String>,
    span: Span,
}

fn pointer<'n>(op: &'n Node, key: &str) -> Patched<Pointer<'n>> {
    let text = text(op, key)?;
    let span = op.get(key).map_or(op.span, |n| n.span);
    let Some(rest) = text.strip_prefix('/') else {
        return Err(Box::new(
            Draft::error(
                "kustomize::patch",
                span,
                format!("{} is no JSON pointer into the object", shortened(text)),
            )
            .expected("a path such as /spec/template/spec/containers/0/image")
            .help("in keys, write ~1 for / and ~0 for ~"),
        ));
    };
    Ok(Pointer {
        text,
        tokens: rest
            .split('/')
            .map(|t| t.replace("~1", "/").replace("~0", "~"))
            .collect(),
        span,
    })
}

fn missing(at: &Pointer<'_>) -> Box<Draft> {
    fail(
        at.span,
        format!("{} does not exist in the object that is patched", at.text),
    )
}

fn index(token: &str, len: usize) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|&i: &usize| canonical && i < len)
}

fn find<'n>(object: &'n Node, at: &Pointer<'_>) -> Patched<&'n Node> {
    at.tokens
        .iter()
        .try_fold(object, |node, token| match &node.data {
            Data::Map(_) => node.get(token),
            Data::Seq(items) => items.get(index(token, items.len())?),
            _ => None,
        })
        .ok_or_else(|| missing(at))
}

/// The container of the last token.
fn parent<'n>(object: &'n mut Node, at: &Pointer<'_>) -> Patched<&'n mut Node> {
    let mut node = object;
    for token in &at.tokens[..at.tokens.len() - 1] {
        let next = match &mut node.data {
            Data::Map(entries) => entries
                .iter_mut()
                .find(|e| e.key == *token)
                .map(|e| &mut e.value),
            Data::Seq(items) => index(token, items.len()).map(|i| &mut items[i]),
            _ => None,
        };
        node = next.ok_or_else(|| missing(at))?;
    }
    Ok(node)
}

fn add(object: &mut Node, at: &Pointer<'_>, value: Node, budget: &mut usize) -> Patched<()> {
    let (nodes, depth) = value.measure();
    if at.tokens.len() + depth > MAX_DEPTH || nodes > *budget {
        return Err(fail(
            at.span,
            "with this the patched object grows beyond every Kubernetes object".into(),
        ));
    }
    *budget -= nodes;
    let last = &at.tokens[at.tokens.len() - 1];
    let parent = parent(object, at)?;
    match &mut parent.data {
        Data::Map(_) => {
            parent.set(last, value);
            Ok(())
        }
        Data::Seq(items) => {
            let place = if last == "-" {
                items.len()
            } else {
                index(last, items.len() + 1).ok_or_else(|| missing(at))?
            };
            items.insert(place, value);
            Ok(())
        }
        _ => Err(missing(at)),
    }
}

fn remove(object: &mut Node, at: &Pointer<'_>) -> Patched<Node> {
    let last = &at.tokens[at.tokens.len() - 1];
    let parent = parent(object, at)?;
    let removed = match &mut parent.data {
        Data::Map(_) => parent.remove(last),
        Data::Seq(items) => index(last, items.len()).map(|i| items.remove(i)),
        _ => None,
    };
    removed.ok_or_else(|| missing(at))
}
