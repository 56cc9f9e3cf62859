// SPDX-License-Identifier: Apache-2.0

// Package proto holds what the agent, the collector and the operator's tools say to each other: the wire types,
// their validation, and the codes of every refusal. README.md is the protocol in words, openapi.yaml in OpenAPI.
//
// It imports the standard library only, does no I/O, and must never learn what one side does with a message.
package proto

// Schema is the version of every JSON document in this package. A reader refuses a greater one.
const Schema = 1

// ServerName is the name in every collector's certificate. Agents and tools that pin the CA verify this name and no
// address, so that a collector may move, have several addresses, or sit behind NAT.
const ServerName = "provostd"
