// Package store keeps the pieces of downloads on disk: in a partial file beside the
// target, at their own offsets, until all are there and the file gets its name.
//
// What survives which accident rests on the order of things (rules F-1 to F-5 of the
// failure model):
//
//   - A piece is held, and may be served, once Write has returned. It survives kill -9
//     and a power cut once it is recorded: a goroutine of the File syncs the data in
//     batches of 64 MiB or a second and only then writes the pieces and their digests
//     to the journal. Nobody who receives waits for that.
//   - After a stop that was not clean, every piece that the journal claims is hashed
//     again when the File is opened; what does not match is dropped. After a clean one
//     (Close) the pieces are compared while the file's hash reads them again.
//   - A failed sync is never repeated. What was written since the last good one is
//     read back through a new handle, compared, and written again; a second failure
//     ends the download with ErrDiskFailing.
//   - Finish: every piece held, the whole file hashed, data synced, renamed without
//     replacing, folder synced, record replaced by one of what was finished. A wrong
//     byte never has the final name.
//
// A content of several files is a File too (Journal.OpenTree): its pieces lie in a folder of
// incomplete files, and each file moves to its name when its pieces are on disk and
// journaled, after their digests and with no hash of the whole. A Shared serves files from where
// their user keeps them, and never once they have changed.
//
// A Journal is one bbolt file for all downloads of a state folder; docs/formats.md
// describes its bytes. The package knows neither origins nor members: its callers
// check bytes against their digest before Write and decide what to fetch.
//
// Start with Journal.Open, File.Begin, File.Write and File.Finish.
package store
