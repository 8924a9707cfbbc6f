//! The words and the contracts that every Plumbline plugin is written in
