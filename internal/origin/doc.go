// Package origin fetches from HTTP and HTTPS origins. It is the one client for all of
// it: a Client asks one URL for the first bytes of its file (Probe) and for ranges of
// one pinned version of it (Fetch).
//
// net/http is the transport here and never the judge. Whether an answer may be used is
// decided in this package, strictly: its status, exactly one well-formed
// Content-Range, identity encoding, the exact length of the body, and the version
// compared with the pin of the first answer. What does not fit is refused; nothing is
// guessed and nothing repaired. No answer is ever asked for with HEAD, and what
// Accept-Ranges says is ignored (RFC 9110, 14.3).
//
// Secrets (user-info, netrc, the user's headers and cookie file) belong to one origin,
// that is scheme, host and port, and go nowhere else; so do cookies that an origin
// sets. Redirects are followed by the package's own rule, see follow.
//
// A Client with a Guard fetches for others: it connects only to addresses that the Guard
// admits, checked at every dial, and sends nothing of anybody's own.
//
// The package asks once. When to ask again, on how many connections and for what is
// decided in package swarm; Error says what there is to know for it.
//
// Start with Client, Answer and Error.
package origin
