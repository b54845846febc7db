//go:build race

package node_test

// The race detector slows the table of misbehaving origins tenfold: every eighth row is
// enough for it to see all of the code; .ci/run has the whole table without it.
func init() { casesApart = 8 }
