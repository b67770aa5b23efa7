package main

import (
	"bytes"
	"os"
	"os/exec"
)

// Where the image has the programs of iptables, once for each of the kernel's two tables.
const tables = "/usr/lib/iptables/"

// Puts those on the PATH whose table has rules here: Docker has written its own before us, and
// rules in the other table would be read beside them rather than with them.
func chooseTables() {
	chosen, most := "legacy", -1
	for _, kind := range []string{"legacy", "nft"} {
		// A kernel without this table has no rules in it.
		rules, _ := exec.Command(tables + kind + "/iptables-save").Output()
		if count := bytes.Count(rules, []byte("\n-")); count > most {
			chosen, most = kind, count
		}
	}
	os.Setenv("PATH", tables+chosen+":"+os.Getenv("PATH"))
}
