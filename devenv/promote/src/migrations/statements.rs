//! A script as statements, each parsed for itself: one that can't be is no reason not to
//! judge the others.

use sqlparser::{
    ast::Statement,
    dialect::MySqlDialect,
    parser::{Parser, ParserError},
    tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace},
};

/// One statement of a script.
pub(super) struct Piece {
    /// Where its code begins, from 1.
    pub line: u64,
    /// Its beginning, without literals.
    pub shown: String,
    /// Or why it can't be.
    pub parsed: Result<Statement, String>,
}

/// How many characters of a statement are shown.
const SHOWN: usize = 72;

/// Deeper nesting is refused instead of using up the stack.
const DEPTH: usize = 50;

pub(super) fn split(sql: &str) -> Vec<Piece> {
    let mut tokens = Vec::new();
    let ended = Tokenizer::new(&MySqlDialect {}, sql).tokenize_with_location_into_buf(&mut tokens);
    let mut out = Vec::new();
    let mut rest = tokens.as_slice();
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|token| token.token == Token::SemiColon)
            .unwrap_or(rest.len());
        let (statement, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        // What follows where the text could not be read may be a part of it.
        if rest.is_empty() && after.is_empty() && ended.is_err() {
            break;
        }
        let Some(piece) = piece(statement) else {
            continue;
        };
        // The client's own command, after which `;` ends nothing.
        let is_delimiter = piece.shown.to_ascii_uppercase().starts_with("DELIMITER");
        out.push(piece);
        if is_delimiter {
            break;
        }
    }
    if let Err(error) = ended {
        out.push(Piece {
            line: error.location.line,
            shown: "…".to_owned(),
            parsed: Err(format!(
                "the text from here on can't be read ({})",
                error.message
            )),
        });
    }
    out
}

/// Nothing, where there are blanks and comments only.
fn piece(tokens: &[TokenWithSpan]) -> Option<Piece> {
    let is_blank = |token: &&TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    // MariaDB runs what stands in such a comment, and MySQL does not.
    let hidden = tokens.iter().find(|token| {
        matches!(&token.token, Token::Whitespace(Whitespace::MultiLineComment(text))
            if text.starts_with("M!"))
    });
    let first = tokens.iter().find(|token| !is_blank(token)).or(hidden)?;
    let parsed = match hidden {
        Some(_) => Err("a comment that MariaDB runs and MySQL does not is in it".to_owned()),
        None => parse(tokens),
    };
    Some(Piece {
        line: first.span.start.line,
        shown: shown(tokens),
        parsed,
    })
}

fn parse(tokens: &[TokenWithSpan]) -> Result<Statement, String> {
    let mut parser = Parser::new(&MySqlDialect {})
        .with_recursion_limit(DEPTH)
        .with_tokens_with_locations(tokens.to_vec());
    let why = |error: ParserError| match error {
        // The parser's words may quote what stands there.
        ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
        _ => "the grammar of MySQL that is known here does not have it".to_owned(),
    };
    let statement = parser.parse_statement().map_err(why)?;
    match parser.peek_token().token {
        Token::EOF => Ok(statement),
        _ => Err("it goes on where it should have ended".to_owned()),
    }
}

fn shown(tokens: &[TokenWithSpan]) -> String {
    let mut out = String::new();
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            Token::Word(_)
            | Token::Number(_, _)
            | Token::LParen
            | Token::RParen
            | Token::Comma
            | Token::Period
            | Token::Eq
            | Token::Mul => out.push_str(&token.token.to_string()),
            token if token.to_string().contains(['\'', '"']) => out.push_str("'…'"),
            token => out.push_str(&token.to_string()),
        }
        if out.chars().count() > SHOWN {
            let cut: String = out.chars().take(SHOWN).collect();
            return format!("{}…", cut.trim_end());
        }
    }
    out.trim_end().to_owned()
}
