//! Tables that a statement gives itself: files that it names, and tables with the options of a hint.

use std::sync::Arc;

use sqlparser::ast::Ident;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::Session;
use crate::alter_table::altered;
use crate::catalog::{Declaration, FileTable};
use crate::define::define;
use crate::error::{Fault, Result};
use crate::files;
use crate::hint;
use crate::options_hint;
use crate::script::parse_script;
use crate::statement::{AlterTable, Body, Statement, TableChange};

impl Session {
    /// Makes the tables whose options a statement gives by a hint, and says which hints do nothing. A table is looked at for each statement, as it may have been altered.
    pub(super) fn vary(&mut self, statement: &Statement) -> Result<()> {
        for token in statement.tokens.iter() {
            self.notes.extend(options_hint::hint_text(&token.token).and_then(hint::without_effect));
            let Token::Word(word) = &token.token else { continue };
            let Some((name, options)) = options_hint::split(&word.value, token.span)? else { continue };
            let before = self.catalog.table(name).map_err(|fault| fault.at(token.span))?.clone();
            let name = Ident { value: name.to_owned(), quote_style: None, span: token.span };
            let alter = AlterTable { name, if_exists: false, change: TableChange::Set(options) };
            let (table, notes) = self.defined(&altered(&before.create, &alter, |_| false)?, statement)?;
            self.notes.extend(notes);
            self.catalog.insert_variant(word.value.clone(), Arc::new(table));
        }
        Ok(())
    }

    /// Declares the tables of the files that a statement names.
    pub(super) fn infer_files(&mut self, statement: &Statement) -> Result<()> {
        for path in files::named(&statement.body) {
            // sqlparser forgets where a name in single quotes stands.
            let is_path = |token: &&TokenWithSpan| token.token == Token::SingleQuotedString(path.value.clone());
            let place = statement.tokens.iter().find(is_path).map(|token| token.span);
            self.infer(&path, &statement.body).map_err(|fault| fault.or_at(place))?;
        }
        Ok(())
    }

    /// Declares the table of a file that a statement names. A file is looked at for each statement, as it may have changed, but for a pipe.
    fn infer(&mut self, path: &Ident, body: &Body) -> Result<()> {
        let (name, key) = (path.value.as_str(), files::key(&path.value));
        let before = self.catalog.file(&key);
        if before.is_some_and(|file| file.is_pipe) {
            return Ok(());
        }
        let (connector, inferred) = self.connectors.infer(name).map_err(|error| Fault::from(error).at(path.span))?;
        self.notes.extend(inferred.notes.iter().cloned());
        let ddl = files::ddl(&files::table_name(name), connector, &inferred);
        let is_known = before.is_some_and(|file| file.ddl == ddl);
        if !is_known && !matches!(body, Body::DescribeFile(_)) {
            self.notes.push(files::summary(name, &inferred));
        }
        let is_pipe = inferred.is_pipe;
        let statement = files::ddl(name, connector, &files::with_dead_letters(name, inferred));
        let parsed = parse_script(&statement, name).map_err(|error| Fault::new(error.to_string()))?;
        let Some(Statement { source, tokens, body: Body::CreateTable(create) }) = parsed.into_iter().next() else {
            return Err(Fault::new(format!("'{name}': the columns cannot be declared")));
        };
        let declaration = Declaration { source, words: tokens };
        let (table, _) = define(&create, declaration, &self.planner(), &self.connectors, &self.job_name())?;
        self.catalog.insert_file(key, FileTable { table: Arc::new(table), ddl, is_pipe });
        Ok(())
    }
}
