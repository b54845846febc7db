// Package manifest says what a content is and, first of all, what it may be called:
// CleanName is the one name resolver, through which every name that an origin, a
// manifest or a member suggests must pass before a file is made.
// ReadTorrent, BuildTorrent and Torrent.Write are BitTorrent v2's metainfo (BEP 52),
// which is how dragonload itself says what a content is.
// ReadMetalink and Metalink.Write are RFC 5854's description of files and their places.
//
// Package manifest touches neither disk nor network; BuildTorrent reads the file system
// that it is given.
package manifest
