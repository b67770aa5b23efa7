//! Label selectors and field selectors. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::status::Failure;
use crate::kinds::KindRef;

/// One condition of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
    Greater(i64),
    Less(i64),
}

/// Conditions on labels, all of which must hold; without any, everything is selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Parses the form of queries: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    ///
    /// # Errors
    /// 400 with Kubernetes' words.
    pub fn parse(text: &str) -> Result<LabelSelector, Failure> {
        Parser::new(text).selector().map_err(|message| {
            Failure::bad_request(format!("unable to parse requirement: {message}"))
        })
    }

    /// Takes over the form of objects: `{matchLabels: {…}, matchExpressions: […]}`, or a plain map
    /// of labels when `plain` (as Services have it).
    ///
    /// # Errors
    /// The operator that is none.
    pub fn from_object(selector: &Value, plain: bool) -> Result<LabelSelector, String> {
        let labels = if plain {
            selector
        } else {
            &selector["matchLabels"]
        };
        let mut all: Vec<Requirement> = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                test: Test::In([value.as_str().unwrap_or_default().to_owned()].into()),
            })
            .collect();
        let expressions = if plain {
            None
        } else {
            selector["matchExpressions"].as_array()
        };
        for expression in expressions.into_iter().flatten() {
            let values = || -> BTreeSet<String> {
                let values = expression["values"].as_array().into_iter().flatten();
                values
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            };
            let test = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Test::In(values()),
                "NotIn" => Test::NotIn(values()),
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            all.push(Requirement { key, test });
        }
        Ok(LabelSelector(all))
    }

    /// Whether there are no conditions.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the labels (a JSON map, or null) meet every condition.
    pub fn matches(&self, labels: &Value) -> bool {
        self.0.iter().all(|r| {
            let value = labels.get(&r.key).and_then(Value::as_str);
            match &r.test {
                Test::In(set) => value.is_some_and(|v| set.contains(v)),
                Test::NotIn(set) => value.is_none_or(|v| !set.contains(v)),
                Test::Exists => value.is_some(),
                Test::DoesNotExist => value.is_none(),
                Test::Greater(n) => value
                    .and_then(|v| v.parse::<i64>().ok())
                    .is_some_and(|v| v > *n),
                Test::Less(n) => value
                    .and_then(|v| v.parse::<i64>().ok())
                    .is_some_and(|v| v < *n),
            }
        })
    }
}

/// Splits as Kubernetes' own lexer does, so that errors name the same token.
struct Parser {
    tokens: Vec<String>,
    at: usize,
}

impl Parser {
    fn new(text: &str) -> Parser {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(&c) = chars.peek() {
            if c.is_whitespace() {
                chars.next();
            } else if "=!(),<>".contains(c) {
                chars.next();
                let double = matches!(c, '=' | '!') && chars.next_if_eq(&'=').is_some();
                tokens.push(if double {
                    format!("{c}=")
                } else {
                    c.to_string()
                });
            } else {
                let mut word = String::new();
                while let Some(c) = chars.next_if(|c| !c.is_whitespace() && !"=!(),<>".contains(*c))
                {
                    word.push(c);
                }
                tokens.push(word);
            }
        }
        Parser { tokens, at: 0 }
    }

    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn take(&mut self) -> String {
        let token = self.peek().to_owned();
        self.at += 1;
        token
    }

    fn word(&mut self, expected: &str) -> Result<String, String> {
        let token = self.take();
        if token.is_empty() || token.starts_with(['=', '!', '(', ')', ',', '<', '>']) {
            return Err(format!("found '{token}', expected: {expected}"));
        }
        Ok(token)
    }

    fn selector(&mut self) -> Result<LabelSelector, String> {
        let mut all = Vec::new();
        while self.at < self.tokens.len() {
            all.push(self.requirement()?);
            match self.take().as_str() {
                "" => break,
                "," if self.at < self.tokens.len() => {}
                "," => return Err("found '', expected: identifier after ','".to_owned()),
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
        Ok(LabelSelector(all))
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        if self.peek() == "!" {
            self.take();
            return Ok(Requirement {
                key: self.word("identifier")?,
                test: Test::DoesNotExist,
            });
        }
        let key = self.word("identifier")?;
        let test = match self.peek() {
            "" | "," => Test::Exists,
            "=" | "==" => {
                self.take();
                Test::In([self.value()?].into())
            }
            "!=" => {
                self.take();
                Test::NotIn([self.value()?].into())
            }
            "in" => {
                self.take();
                Test::In(self.values()?)
            }
            "notin" => {
                self.take();
                Test::NotIn(self.values()?)
            }
            sign @ (">" | "<") => {
                let greater = sign == ">";
                self.take();
                let value = self.word("identifier")?;
                let number = value.parse().map_err(|_| {
                    format!("values[0][{key}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer")
                })?;
                if greater {
                    Test::Greater(number)
                } else {
                    Test::Less(number)
                }
            }
            other => {
                return Err(format!(
                    "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        Ok(Requirement { key, test })
    }

    /// A value, which may be empty at the end or before a comma.
    fn value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), "" | ",") {
            Ok(String::new())
        } else {
            self.word("identifier")
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let open = self.take();
        if open != "(" {
            return Err(format!("found '{open}', expected: '('"));
        }
        let mut values = BTreeSet::new();
        loop {
            match self.peek() {
                ")" | "," => values.insert(String::new()),
                _ => values.insert(self.word("identifier")?),
            };
            match self.take().as_str() {
                "," => {}
                ")" => return Ok(values),
                other => return Err(format!("found '{other}', expected: ',' or ')'")),
            }
        }
    }
}

/// Conditions on a few fields, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(String, String, bool)>);

impl FieldSelector {
    /// Parses `a=b,c==d,e!=f` for the fields that the kind supports.
    ///
    /// # Errors
    /// 400 with Kubernetes' words.
    pub fn parse(kind: KindRef, text: &str) -> Result<FieldSelector, Failure> {
        let mut all = Vec::new();
        for term in text.split(',').filter(|t| !t.is_empty()) {
            let (field, value, equal) = if let Some((f, v)) = term.split_once("!=") {
                (f, v, false)
            } else if let Some((f, v)) = term.split_once("==") {
                (f, v, true)
            } else if let Some((f, v)) = term.split_once('=') {
                (f, v, true)
            } else {
                return Err(Failure::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                )));
            };
            if !supported(kind, field) {
                return Err(Failure::bad_request(format!(
                    "field label not supported: {field}"
                )));
            }
            all.push((field.to_owned(), value.to_owned(), equal));
        }
        Ok(FieldSelector(all))
    }

    /// Whether there are no conditions.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the object meets every condition; a missing field counts as empty.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, wanted, equal)| {
            let value = field.split('.').try_fold(object, |v, part| v.get(part));
            let text = match value {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Bool(b)) => b.to_string(),
                Some(Value::Number(n)) => n.to_string(),
                _ => String::new(),
            };
            (text == *wanted) == *equal
        })
    }
}

fn supported(kind: KindRef, field: &str) -> bool {
    const POD: &[&str] = &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ];
    const EVENT: &[&str] = &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "type",
    ];
    let more: &[&str] = match kind.kind {
        "Pod" => POD,
        "Event" => EVENT,
        "Secret" => &["type"],
        "Namespace" => &["status.phase"],
        "Node" => &["spec.unschedulable"],
        "ReplicaSet" => &["status.replicas"],
        "Service" if kind.group.is_empty() => &["spec.clusterIP", "spec.type"],
        _ => &[],
    };
    field == "metadata.name" || field == "metadata.namespace" || more.contains(&field)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::kinds::{EVENT, POD};

    #[rstest]
    #[case("", true)]
    #[case("app=web", true)]
    #[case("app==web,tier!=db", true)]
    #[case("app in (api, web),tier notin (db)", true)]
    #[case("app,!gone", true)]
    #[case("app=", false)]
    #[case("!app", false)]
    #[case("n>4,n<6", true)]
    #[case("n>5", false)]
    #[case("missing", false)]
    #[case("missing!=x", true)]
    #[case("missing in (x)", false)]
    fn labels(#[case] text: &str, #[case] wanted: bool) {
        let labels = json!({"app": "web", "n": "5"});
        assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels), wanted);
    }

    #[rstest]
    #[case(
        "a===b",
        "unable to parse requirement: found '=', expected: identifier"
    )]
    #[case(
        "a=b,",
        "unable to parse requirement: found '', expected: identifier after ','"
    )]
    #[case("a in b", "unable to parse requirement: found 'b', expected: '('")]
    #[case(
        "a in (b",
        "unable to parse requirement: found '', expected: ',' or ')'"
    )]
    #[case(
        "a b",
        "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
    )]
    fn label_errors(#[case] text: &str, #[case] wanted: &str) {
        assert_eq!(LabelSelector::parse(text).unwrap_err().message, wanted);
    }

    #[test]
    fn selectors_of_objects() {
        let selector = json!({"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]});
        let selector = LabelSelector::from_object(&selector, false).unwrap();
        assert!(selector.matches(&json!({"app": "web"})));
        assert!(!selector.matches(&json!({"app": "web", "tier": "db"})));
        assert!(
            LabelSelector::from_object(&json!({"matchExpressions": [{"operator": "Is"}]}), false)
                .is_err()
        );
        let plain = LabelSelector::from_object(&json!({"app": "web"}), true).unwrap();
        assert!(plain.matches(&json!({"app": "web", "x": "y"})) && !plain.matches(&Value::Null));
    }

    #[test]
    fn fields() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "devenv"}, "status": {"phase": "Running"}});
        let matches = |text| FieldSelector::parse(&POD, text).unwrap().matches(&pod);
        assert!(matches("status.phase=Running,metadata.name==p"));
        assert!(matches(
            "spec.nodeName=devenv,status.phase!=Succeeded,status.phase!=Failed"
        ));
        assert!(!matches("status.phase=Pending"));
        assert!(matches("status.podIP="));
        assert_eq!(
            FieldSelector::parse(&POD, "spec.foo=b")
                .unwrap_err()
                .message,
            "field label not supported: spec.foo"
        );
        let event = json!({"involvedObject": {"kind": "Node", "name": "devenv"}});
        let selector = "involvedObject.kind=Node,involvedObject.namespace=";
        assert!(
            FieldSelector::parse(&EVENT, selector)
                .unwrap()
                .matches(&event)
        );
    }
}
