//! The table of tasks: one row for each issue that was ever taken.

use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, TransactionBehavior, params};

use super::census::{Census, TASKS};
use super::fault::{corrupt, from_sql};
use super::row::{self, Sum};
use super::{SqliteStore, StoreError, task};
use crate::work::Task;

impl SqliteStore {
    /// Reads every task and compares the sum of the rows with the census.
    pub(super) fn check_tasks(&self) -> Result<(), StoreError> {
        let mut found = Census::default();
        self.each_task(|_, sum| found.add(&sum))?;
        if found != Census::read(&TASKS, &self.db, &self.path)? {
            return Err(corrupt(&self.path, "its tasks are not those that were written"));
        }
        Ok(())
    }

    pub(super) fn all_tasks(&self) -> Result<Vec<Task>, StoreError> {
        let mut tasks = Vec::new();
        self.each_task(|task, _| tasks.push(task))?;
        Ok(tasks)
    }

    fn each_task(&self, mut with: impl FnMut(Task, Sum)) -> Result<(), StoreError> {
        let sql = || self.sql("reading the tasks");
        let mut statement = self.db.prepare("SELECT issue, task, digest FROM tasks ORDER BY issue").map_err(sql())?;
        let mut rows = statement.query([]).map_err(sql())?;
        while let Some(row) = rows.next().map_err(sql())? {
            let read = |at| row.get::<_, String>(at);
            let (issue, text, sum): (String, String, Sum) =
                read(0).and_then(|issue| Ok((issue, read(1)?, row.get(2)?))).map_err(sql())?;
            let wrong = |why: &str| corrupt(&self.path, &format!("the task {issue:?}: {why}"));
            if digest(&issue, &text) != sum {
                return Err(wrong("its row was changed"));
            }
            let task = task::read(&text).map_err(|why| wrong(&why))?;
            if task.key.to_string() != issue {
                return Err(wrong("it is of another issue"));
            }
            with(task, sum);
        }
        Ok(())
    }

    /// Writes a task into the log of the database.
    pub(super) fn write_task(&mut self, task: &Task) -> Result<(), StoreError> {
        const DOING: &str = "saving a task";
        let path = self.path.clone();
        let sql = |error| from_sql(&path, DOING, error);
        let issue = task.key.to_string();
        let text = task::write(task).map_err(|why| StoreError::Failed { doing: DOING, why })?;
        let sum = digest(&issue, &text);
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        let mut census = Census::read(&TASKS, &change, &path)?;
        let old: Option<Sum> = change
            .query_row("SELECT digest FROM tasks WHERE issue = ?1", [&issue], |row| row.get(0))
            .optional()
            .map_err(sql)?;
        if let Some(old) = old {
            census.remove(&old);
        }
        census.add(&sum);
        change.execute("INSERT OR REPLACE INTO tasks VALUES (?1, ?2, ?3)", params![issue, text, sum]).map_err(sql)?;
        census.write(&TASKS, &change).map_err(sql)?;
        change.commit().map_err(sql)
    }
}

fn digest(issue: &str, text: &str) -> Sum {
    row::sum(&[Value::Text("task".to_owned()), Value::Text(issue.to_owned()), Value::Text(text.to_owned())])
}
