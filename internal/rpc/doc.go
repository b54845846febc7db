// Package rpc carries the control plane: what a node and its tracker say to each other
// about a pool (Tracker, Session), how a machine joins a room (Join), and the local API
// through which a command reaches a node that runs already (LocalServer, LocalClient).
//
// The messages themselves are values of package swarm; here they become protobuf and
// come back, and everything that comes from outside is checked and bounded on the way:
// see DecodeToTracker and DecodeToNode. The wire is Connect over HTTP/2, described in
// proto/dragonload, whose generated code is in gen; generate.sh makes it again.
//
// Errors cross as a code and one stable word, see Refusal; texts of internal errors do
// not. Package rpc knows no certificates: callers hand in the *tls.Config of a room.
//
// Start with Tracker, Session and EncodeToTracker.
package rpc
