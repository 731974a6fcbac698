// Verifies a log with the packages of the Go checksum database, as they are: an outsider that knows nothing of Roomkey.
//
//	verify URL KEY [OLD-CHECKPOINT-FILE] INDEX...
//
// It fetches checkpoint, tiles and entries over HTTP, and proves the signature, that each entry is in the tree, and that
// the tree continues the old one.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

type server struct{ url, credential string }

func (s server) get(path string) ([]byte, error) {
	request, err := http.NewRequest("GET", s.url+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	if s.credential != "" {
		request.Header.Set("Authorization", "Bearer "+s.credential)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != 200 {
		return nil, fmt.Errorf("%s: %s", path, response.Status)
	}
	return io.ReadAll(response.Body)
}

func (s server) Height() int { return height }

func (s server) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var read [][]byte
	for _, tile := range tiles {
		content, err := s.get(strings.Replace(tile.Path(), "tile/8/", "tile/", 1))
		if err != nil {
			return nil, err
		}
		read = append(read, content)
	}
	return read, nil
}

func (s server) SaveTiles([]tlog.Tile, [][]byte) {}

func (s server) entry(index, size int64) ([]byte, error) {
	tile := tlog.Tile{H: height, L: -1, N: index / 256, W: 256}
	if rest := size - tile.N*256; rest < 256 {
		tile.W = int(rest)
	}
	content, err := s.get(strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1))
	for at := tile.N * 256; err == nil && at < index; at++ {
		content = content[2+binary.BigEndian.Uint16(content):]
	}
	if err != nil {
		return nil, err
	}
	return content[2 : 2+binary.BigEndian.Uint16(content)], nil
}

func head(content []byte, key string) (int64, tlog.Hash, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	opened, err := note.Open(content, note.VerifierList(verifier))
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return size, root, err
}

func verify(log server, key string, rest []string) error {
	content, err := log.get("checkpoint")
	if err != nil {
		return err
	}
	size, root, err := head(content, key)
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, log)
	for _, argument := range rest {
		index, err := strconv.ParseInt(argument, 10, 64)
		if err != nil {
			if err := continues(argument, key, size, root, hashes); err != nil {
				return err
			}
			continue
		}
		entry, err := log.entry(index, size)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveRecord(size, index, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, size, root, index, tlog.RecordHash(entry)); err != nil {
			return fmt.Errorf("entry %d: %v", index, err)
		}
		fmt.Printf("entry %d of %d is %q\n", index, size, entry)
	}
	return nil
}

func continues(file, key string, size int64, root tlog.Hash, hashes tlog.HashReader) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	old, oldRoot, err := head(content, key)
	if err != nil {
		return err
	}
	proof, err := tlog.ProveTree(size, old, hashes)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, size, root, old, oldRoot); err != nil {
		return err
	}
	fmt.Printf("%d entries continue %d\n", size, old)
	return nil
}

func main() {
	log := server{url: os.Args[1], credential: os.Getenv("CREDENTIAL")}
	if err := verify(log, os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
