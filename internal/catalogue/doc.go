// Package catalogue says what the members of a room hold: entries (Entry), what is asked
// of them (Query) and answered (Page), and the index in memory that answers it (Index).
//
// An entry is what one member says of one manifest. Nobody is believed more than others:
// members that say the same of a manifest are the holders of one result, one that says
// something else of it is a result of its own, and what they say is checked against the
// manifest by who gets it.
//
// It knows no network and no disk, and what time it is it is told. Start with Entry,
// Query and Index.
package catalogue
